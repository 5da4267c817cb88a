"""Sparse upcycling: a dense Llama or Mistral becomes a Mixtral that computes the same function.

Every expert starts as a copy of the dense MLP. The router's weights sum to one over the chosen experts, so the block's
output is the dense MLP's, whatever it chooses. After Komatsuzaki et al., "Sparse Upcycling", 2022.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from reseed.models.names import Upcycle
from reseed.models.saving import save_model
from reseed.records import ReseedError

if TYPE_CHECKING:
    import torch

DENSE_FAMILIES = ("llama", "mistral")


def upcycle_folder(source: Path, target: Path, how: Upcycle) -> None:
    """Load the dense model in `source`, upcycle it and save it with its tokenizer in `target`, in the same dtype."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    dense = AutoModelForCausalLM.from_pretrained(source, dtype="auto", use_safetensors=True, trust_remote_code=False)
    save_model(upcycle(dense, how), target)
    AutoTokenizer.from_pretrained(source, trust_remote_code=False).save_pretrained(target)


def upcycle(dense: Any, how: Upcycle) -> Any:
    """A `MixtralForCausalLM` whose logits equal the dense model's (in fp32 within 1e-3; 4e-5 was seen).

    Raises ReseedError for a family whose layers are not Llama's.
    """
    import torch
    from transformers import MixtralForCausalLM

    config = mixtral_config(dense.config, how)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(how.seed)
        sparse = MixtralForCausalLM(config).to(dense.dtype)
    weights: dict[str, torch.Tensor] = {}
    for name, tensor in dense.state_dict().items():
        if ".mlp." not in name:
            weights[name] = tensor
    for layer in range(config.num_hidden_layers):
        mlp = dense.model.layers[layer].mlp
        gate_up = torch.cat([mlp.gate_proj.weight, mlp.up_proj.weight])
        prefix = f"model.layers.{layer}.mlp.experts"
        weights[f"{prefix}.gate_up_proj"] = gate_up.expand(how.experts, -1, -1)
        weights[f"{prefix}.down_proj"] = mlp.down_proj.weight.expand(how.experts, -1, -1)
    missing, unexpected = sparse.load_state_dict(weights, strict=False)
    left = [name for name in missing if not name.endswith("mlp.gate.weight")]
    if left or unexpected:
        raise ReseedError(f"upcycling: weights without a place {unexpected[:3]}, places without a weight {left[:3]}")
    sparse.generation_config = dense.generation_config
    return sparse


def mixtral_config(dense: Any, how: Upcycle) -> Any:
    """The Mixtral configuration with the dense model's shape, position encoding and special tokens."""
    from transformers import MixtralConfig

    if dense.model_type not in DENSE_FAMILIES:
        raise refusal(f"a {dense.model_type} model")
    for switch, what in (("attention_bias", "attention bias"), ("mlp_bias", "MLP bias")):
        if getattr(dense, switch, False):
            raise refusal(f"a {dense.model_type} model with {what}")
    same = (
        "vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads num_key_value_heads head_dim "
        "hidden_act max_position_embeddings initializer_range rms_norm_eps rope_parameters tie_word_embeddings "
        "bos_token_id eos_token_id pad_token_id attention_dropout"
    )
    values = {key: getattr(dense, key) for key in same.split()}
    return MixtralConfig(
        **values,
        sliding_window=getattr(dense, "sliding_window", None),
        num_local_experts=how.experts,
        num_experts_per_tok=how.top_k,
    )


def refusal(what: str) -> ReseedError:
    """The error for a model whose function a Mixtral cannot compute."""
    return ReseedError(
        f"upcycle: {what} cannot become a Mixtral; wanted one of {', '.join(DENSE_FAMILIES)} without biases; "
        "leave `upcycle` out to use it as it is"
    )
