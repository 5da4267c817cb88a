"""Mixtral with one Linear per projection and expert, instead of one 3-D parameter for all experts.

transformers 5 stores a layer's experts as two 3-D parameters. bitsandbytes quantises Linear modules only, so a "4-bit"
Mixtral silently keeps its experts, 96 % of its weights, in 16 bit (bitsandbytes#1849); PEFT can adapt such a
parameter, but without dropout, and writes out the whole changed parameter in every forward pass. As Linear modules,
experts work with the stock code of both. The price is one matrix product per expert where `grouped_mm` needs one a layer.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import MixtralConfig, MixtralForCausalLM
from transformers.activations import ACT2FN

from reseed.records import ReseedError

# A hub checkpoint's names → the names here, which are Llama's. PEFT would take w1, w2, w3 for the 3-D parameters.
CHECKPOINT_NAMES = {
    r"\.block_sparse_moe\.": ".mlp.",
    r"\.experts\.(\d+)\.w1\.": r".experts.\1.gate_proj.",
    r"\.experts\.(\d+)\.w3\.": r".experts.\1.up_proj.",
    r"\.experts\.(\d+)\.w2\.": r".experts.\1.down_proj.",
}


class Expert(nn.Module):
    """One expert: a gated MLP."""

    def __init__(self, config: MixtralConfig) -> None:
        super().__init__()
        width, inner = config.hidden_size, config.intermediate_size
        self.gate_proj = nn.Linear(width, inner, bias=False)
        self.up_proj = nn.Linear(width, inner, bias=False)
        self.down_proj = nn.Linear(inner, width, bias=False)
        self.activation = ACT2FN[config.hidden_act]

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Map (rows, width) to (rows, width)."""
        out: torch.Tensor = self.down_proj(self.activation(self.gate_proj(hidden)) * self.up_proj(hidden))
        return out


class SeparateExperts(nn.ModuleList):
    """A layer's experts. Replaces `MixtralExperts` and computes the same."""

    def __init__(self, config: MixtralConfig) -> None:
        super().__init__(Expert(config) for _ in range(config.num_local_experts))

    def forward(self, hidden: torch.Tensor, chosen: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """`hidden` (tokens, width); `chosen` and `weights` (tokens, top_k) → (tokens, width).

        An expert that no token chose runs on no rows: ranks that route differently must call the same modules in the
        same order, or ZeRO-3's gathering and ZeRO-2's reduction hang (DeepSpeed#4808).
        """
        tokens, top_k = chosen.shape
        order = chosen.flatten().argsort(stable=True)
        parts = torch.split(hidden[order // top_k], rows_of(chosen, len(self)))
        out = torch.cat([expert(part) for expert, part in zip(self, parts, strict=True)])
        out = out * weights.flatten()[order, None]
        back = torch.empty_like(order)
        back[order] = torch.arange(len(order), device=order.device)
        summed: torch.Tensor = out[back].view(tokens, top_k, -1).sum(1)
        return summed.to(hidden.dtype)


def rows_of(chosen: torch.Tensor, experts: int) -> list[int]:
    """How many rows go to each expert; evenly where there are only shapes, as in a memory plan."""
    if chosen.is_meta:
        return [len(part) for part in torch.empty(chosen.numel(), 0).tensor_split(experts)]
    counts: list[int] = torch.bincount(chosen.flatten(), minlength=experts).tolist()
    return counts


class SeparateMixtralConfig(MixtralConfig):
    """Mixtral's configuration under another name: by Mixtral's, transformers and PEFT would fuse the experts."""

    model_type = "mixtral_separate"


def separate_config(config: MixtralConfig) -> SeparateMixtralConfig:
    """The same shape under the other name."""
    return SeparateMixtralConfig(**{key: value for key, value in config.to_dict().items() if key != "model_type"})


class SeparateMixtral(MixtralForCausalLM):
    """Mixtral with `SeparateExperts`."""

    config_class = SeparateMixtralConfig

    def __init__(self, config: MixtralConfig) -> None:
        super().__init__(config)
        for layer in self.model.layers:
            layer.mlp.experts = SeparateExperts(config)


def load_separate(folder: Path, family: str, **options: Any) -> Any:
    """The Mixtral in `folder` with separate experts; `options` are those of `from_pretrained`."""
    if family != "mixtral":
        raise ReseedError(
            f"model in {folder.name}: the experts of a {family} model can be neither trained nor held in 4 bit here; "
            "wanted a mixtral model, or training.method lora with targets in the attention"
        )
    config = separate_config(MixtralConfig.from_pretrained(folder))
    return SeparateMixtral.from_pretrained(folder, config=config, key_mapping=CHECKPOINT_NAMES, **options)
