"""A model that ZeRO-3 shards across the ranks: no rank holds a parameter whole, except inside `whole_adapter`."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from reseed.mistakes import first_line
from reseed.models.adapters import check_files, check_moved
from reseed.models.expert_adapters import has_separate_experts, to_module_names
from reseed.records import ReseedError


def is_sharded(model: Any) -> bool:
    """True once DeepSpeed has sharded the model's parameters (ZeRO-3)."""
    return any(hasattr(weight, "ds_id") for weight in model.parameters())


@contextmanager
def whole_adapter(model: Any, changed_by: int | None = None) -> Iterator[None]:
    """Within the block the trained weights are whole on every rank. All ranks must enter, or the others wait forever.

    Saved without this, an adapter under ZeRO-3 is 40 bytes of nothing (trl#4416). What rank `changed_by` writes into the
    weights is what every rank has afterwards.
    """
    if not is_sharded(model):
        yield
        return
    import deepspeed

    trained = [weight for weight in model.parameters() if weight.requires_grad]
    with deepspeed.zero.GatheredParameters(trained, modifier_rank=changed_by):
        yield


@contextmanager
def unsharded() -> Iterator[None]:
    """Within the block models load whole, on this rank alone: under ZeRO-3 transformers shards every model it loads, and
    one that a single rank loads would wait for the others forever."""
    from transformers.integrations import deepspeed as state

    settings = state._hf_deepspeed_config_weak_ref() if state._hf_deepspeed_config_weak_ref is not None else None
    state.unset_hf_deepspeed_config()
    try:
        yield
    finally:
        if settings is not None:
            state.set_hf_deepspeed_config(settings)


def verify_sharded(model: Any, folder: Path, tokenizer: Any) -> float:
    """Like `verify_adapter`, but by all ranks together; only rank 0 needs the files.

    PEFT reads them into the adapter that was trained, not into a second one: DeepSpeed would not know the new parameters,
    and a base without an adapter would have to be gathered whole.
    """
    import torch

    mistake: list[str | None] = [None]
    with whole_adapter(model, changed_by=0):
        if torch.distributed.get_rank() == 0:
            mistake = [mistake_in(model, folder)]
    torch.distributed.broadcast_object_list(mistake)  # an error that only rank 0 raised would leave the others waiting
    if mistake[0] is not None:
        raise ReseedError(mistake[0])
    device = next(model.parameters()).device
    ids = tokenizer("An adapter that changes nothing has learnt nothing.", return_tensors="pt").input_ids.to(device)
    model.eval()
    with torch.no_grad(), whole_model(model):
        with model.disable_adapter():
            plain = model(ids).logits.float()
        shift = [float((model(ids).logits.float() - plain).abs().max())]
    torch.distributed.broadcast_object_list(shift)
    check_moved(shift[0])
    return shift[0]


@contextmanager
def whole_model(model: Any) -> Iterator[None]:
    """Within the block every weight is whole, for a model without DeepSpeed's engine, which would gather layer by layer:
    that of a run that was killed at its very end and resumed."""
    if all(hasattr(weight, "ds_id") for weight in model.parameters()):
        yield
        return
    import deepspeed

    with deepspeed.zero.GatheredParameters(list(model.parameters())):
        yield


def mistake_in(model: Any, folder: Path) -> str | None:
    """Read the adapter's files into the model's whole adapter; return what is wrong with them, or None."""
    from peft import load_peft_weights, set_peft_model_state_dict

    try:
        check_files(folder)
        with tempfile.TemporaryDirectory() as place:
            own = to_module_names(folder, Path(place) / "own") if has_separate_experts(model) else folder
            weights = load_peft_weights(str(own), device="cpu")
        if all(float(weight.abs().max()) == 0 for name, weight in weights.items() if "lora_B" in name):
            return "adapter: every lora_B is zero, so nothing was trained; raise the learning rate or the steps"
        loaded = set_peft_model_state_dict(model, weights)
    except (ReseedError, RuntimeError, OSError, ValueError) as error:
        return f"adapter: it cannot be loaded again: {first_line(error)}"
    absent = [name for name in loaded.missing_keys if "lora_" in name]
    return f"adapter: its file lacks {len(absent)} weights, the first is {absent[0]}" if absent else None
