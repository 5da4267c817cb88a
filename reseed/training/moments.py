"""Adam's moments of every trained weight, under the weight's name: stored with an adapter that a later run may continue.

A pickle of the optimiser would hold DeepSpeed's shards, which fit one number of workers only, and could run code.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reseed.records import ReseedError

if TYPE_CHECKING:
    import torch

FILE = "optimizer.safetensors"
MOMENTS = ("exp_avg", "exp_avg_sq")
STEP = "step"  # Adam's own count, for the bias correction


def trained_weights(model: Any) -> Iterator[tuple[str, Any]]:
    """The weights that are trained, by name."""
    return ((name, weight) for name, weight in model.named_parameters() if weight.requires_grad)


def has_shards(optimizer: Any) -> bool:
    """True for DeepSpeed's optimiser of ZeRO-1 and 2, which keeps flat shards of all weights together."""
    return hasattr(optimizer, "single_partition_of_fp32_groups")


def gather_moments(model: Any, wrapped: Any) -> dict[str, torch.Tensor]:
    """Gather the whole moments on every rank, all of which must call this. `wrapped` is the optimiser as a callback sees it."""
    optimizer = wrapped.optimizer
    found: dict[str, torch.Tensor] = {}
    if has_shards(optimizer):
        from deepspeed.utils import safe_get_full_optimizer_state

        for name, weight in trained_weights(model):
            found |= {f"{name}/{m}": safe_get_full_optimizer_state(weight, m).cpu() for m in MOMENTS}
        states = optimizer.optimizer.state.values()
    else:
        for name, weight in trained_weights(model):
            found |= {f"{name}/{m}": optimizer.state[weight][m].detach().cpu().contiguous() for m in MOMENTS}
        states = optimizer.state.values()
    return found | {STEP: next(iter(states))["step"].detach().cpu().reshape(1).float()}


def restore_moments(model: Any, wrapped: Any, moments: Mapping[str, torch.Tensor]) -> None:
    """Put stored moments into an optimiser that has not stepped yet. Raises ReseedError if they are of other weights."""
    import torch

    wanted = {f"{name}/{moment}" for name, _ in trained_weights(model) for moment in MOMENTS} | {STEP}
    if wanted != set(moments):
        raise ReseedError(
            f"training.start_from: the stored optimiser state is of {len(moments) // 2} weights, wanted "
            f"{len(wanted) // 2}, such as {min(wanted)}; start from an adapter with the same targets"
        )
    optimizer, step = wrapped.optimizer, moments[STEP].reshape(())
    if has_shards(optimizer):
        restore_shards(model, optimizer, moments, step)
        return
    for name, weight in trained_weights(model):
        own = {m: torch.zeros_like(weight).copy_(moments[f"{name}/{m}"]) for m in MOMENTS}
        optimizer.state[weight] = {"step": step.to(weight.device, copy=True), **own}


def restore_shards(model: Any, zero: Any, moments: Mapping[str, torch.Tensor], step: torch.Tensor) -> None:
    """Cut this rank's shard out of every weight's moments: DeepSpeed knows where each weight lies in the flat shard."""
    import torch

    names = {id(weight): name for name, weight in trained_weights(model)}
    for weights, flat in zip(zero.bit16_groups, zero.single_partition_of_fp32_groups, strict=True):
        state = {moment: torch.zeros_like(flat) for moment in MOMENTS}
        for weight in weights:
            place = weight._hp_mapping
            if place is None:  # it is in other ranks' shards
                continue
            whole, part = place.lp_fragment_address, place.hp_fragment_address
            for moment, buffer in state.items():
                values = moments[f"{names[id(weight)]}/{moment}"].flatten().narrow(0, whole.start, whole.numel)
                buffer.data.narrow(0, part.start, part.numel).copy_(values)
        zero.optimizer.state[flat] = {"step": step.to(flat.device, copy=True), **state}


def save_moments(moments: Mapping[str, torch.Tensor], folder: Path) -> None:
    """Write the moments as one safetensors file."""
    from safetensors.torch import save_file

    save_file(dict(moments), folder / FILE)


def load_moments(folder: Path) -> dict[str, torch.Tensor]:
    """Read what `save_moments` wrote. Raises ReseedError if there is none."""
    from safetensors.torch import load_file

    if not (folder / FILE).is_file():
        raise ReseedError(
            "training.keep_optimizer: the adapter to start from was stored without its optimiser's state; train it with "
            "keep_optimizer too"
        )
    return dict(load_file(folder / FILE))
