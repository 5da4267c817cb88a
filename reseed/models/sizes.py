"""The number of a model's parameters and their bytes, by group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

GROUPS = (  # a parameter belongs to the first group with a mark in its name
    ("adapter", (".lora_",)),
    ("experts", (".experts.",)),
    ("router", (".mlp.gate.", ".router.")),
    ("attention", (".self_attn.",)),
    ("mlp", (".mlp.",)),
    ("embeddings", ("embed_tokens",)),
    ("head", ("lm_head",)),
)


@dataclass(frozen=True)
class Size:
    """One group of a model's parameters. `bytes` counts what quantisation keeps beside the weights."""

    name: str
    parameters: int
    bytes: int


def sizes(model: Any) -> list[Size]:
    """The model's groups. Tied parameters count once."""
    counted: dict[str, list[int]] = {}
    for name, parameter in model.named_parameters():
        group = counted.setdefault(group_of(name), [0, 0])
        group[0] += elements(parameter)
        group[1] += weight_bytes(parameter)
    order = [name for name, _ in GROUPS] + ["norms"]
    return [Size(name, *counted[name]) for name in order if name in counted]


def group_of(name: str) -> str:
    """The group of a parameter, by its name."""
    return next((group for group, marks in GROUPS if any(mark in f".{name}" for mark in marks)), "norms")


def elements(parameter: Any) -> int:
    """The number of weights in a parameter, even if it is packed or sharded."""
    state = getattr(parameter, "quant_state", None)
    if state is not None:
        return int(state.shape.numel())
    return int(getattr(parameter, "ds_numel", parameter.numel()))


def weight_bytes(parameter: Any) -> int:
    """Bytes of a parameter and its quantisation state in this process; under ZeRO-3, those of this rank's shard."""
    held = getattr(parameter, "ds_tensor", parameter)
    state = getattr(parameter, "quant_state", None)
    scales = [state.absmax, *([state.state2.absmax] if state.nested else [])] if state is not None else []
    return int(sum(tensor.numel() * tensor.element_size() for tensor in (held, *scales)))


def sizes_text(groups: Sequence[Size]) -> str:
    """The groups as a line of text: `experts 318.5 M in 179 MB (4.5 bits), …`."""
    shown = [
        f"{g.name} {g.parameters / 1e6:.1f} M in {g.bytes / 1e6:.1f} MB ({g.bytes * 8 / g.parameters:.1f} bits)"
        for g in groups
    ]
    return ", ".join(shown)
