"""Adapters of separate experts, in the names that stock PEFT, transformers 4 and servers know: w1, w3, w2.

While it loads, stock PEFT turns these names into LoRA on transformers 5's 3-D expert parameters. There the two halves of
`gate_up_proj` share one adapter of twice the rank, dropout is refused, and rank-stabilised scaling, computed from the
doubled rank, would be √2 too large. That is why `to_checkpoint_names` changes more than names.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from reseed.records import ReseedError

FILES = ("adapter_config.json", "adapter_model.safetensors")
NAMES = {"gate_proj": "w1", "up_proj": "w3", "down_proj": "w2"}  # here → in a checkpoint
BACK = {theirs: own for own, theirs in NAMES.items()}


def has_separate_experts(model: Any) -> bool:
    """True for a model, or a PeftModel of one, whose experts are Linear modules."""
    return bool(getattr(model.config, "model_type", None) == "mixtral_separate")


def check_expert_targets(targets: tuple[str, ...], dora: bool) -> None:
    """Refuse LoRA on one half of what stock Mixtral holds as one parameter, and DoRA, which PEFT refuses there."""
    if dora and set(NAMES) & set(targets):
        raise ReseedError(
            "training.dora: stock PEFT cannot load DoRA onto a mixture's experts; "
            f"leave dora out, or {', '.join(sorted(NAMES))} out of training.targets"
        )
    halves = {"gate_proj", "up_proj"}
    if len(halves & set(targets)) == 1:
        lone = (halves & set(targets)).pop()
        raise ReseedError(
            f"training.targets: {lone} without {(halves - {lone}).pop()}; stock Mixtral holds both in one parameter, "
            "name both or neither"
        )


def to_checkpoint_names(folder: Path) -> None:
    """Rewrite a saved adapter in place, so that on a stock Mixtral stock PEFT gives it the same effect."""
    config, weights = read(folder)
    config["target_modules"] = sorted(NAMES.get(name, name) for name in config["target_modules"])
    config["lora_dropout"] = 0.0
    if config.get("use_rslora"):
        config |= {"use_rslora": False, "lora_alpha": config["lora_alpha"] * config["r"] ** 0.5}
    renamed = {
        re.sub(
            r"\.mlp\.experts\.(\d+)\.(\w+)\.lora_",
            lambda m: f".block_sparse_moe.experts.{m[1]}.{NAMES[m[2]]}.lora_",
            key,
        ): tensor
        for key, tensor in weights.items()
    }
    write(folder, config, renamed)


def to_module_names(source: Path, target: Path) -> Path:
    """Copy the adapter in `source` to `target`, with the module names of `SeparateMixtral`; return `target`."""
    config, weights = read(source)
    config["target_modules"] = sorted(BACK.get(name, name) for name in config["target_modules"])
    renamed = {
        re.sub(
            r"\.block_sparse_moe\.experts\.(\d+)\.(w\d)\.lora_",
            lambda m: f".mlp.experts.{m[1]}.{BACK[m[2]]}.lora_",
            key,
        ): tensor
        for key, tensor in weights.items()
    }
    target.mkdir(parents=True)
    write(target, config, renamed)
    return target


def read(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read the configuration and the tensors of an adapter."""
    from safetensors.torch import load_file

    return json.loads((folder / FILES[0]).read_text(encoding="utf-8")), load_file(folder / FILES[1])


def write(folder: Path, config: dict[str, Any], weights: dict[str, Any]) -> None:
    """Write the two files of an adapter."""
    from safetensors.torch import save_file

    (folder / FILES[0]).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    save_file(weights, folder / FILES[1], metadata={"format": "pt"})
