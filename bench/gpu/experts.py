"""NF4 experts, forward and backward, against the same experts with their weights written out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from gpu.setup import Row, Setup, measured, mixtral, tried

from reseed.models.adapters import add_adapter
from reseed.models.loading import load_model
from reseed.models.sizes import sizes
from reseed.settings import TrainingSettings
from reseed.training.loss import summed_loss

SETTINGS = TrainingSettings(targets=("q_proj", "gate_proj", "up_proj", "down_proj"), rank=8)


def nf4(setup: Setup) -> Iterator[Row]:
    """Logits, and the gradients of LoRA on attention and experts; in bfloat16 a token near a tie may take another expert."""
    for form, dtype in (("nf4", "float32"), ("nf4-double", "float32"), ("nf4-double", "bfloat16")):
        yield tried(f"{form}, {dtype}", lambda form=form, dtype=dtype: compared(setup, form, dtype))


def compared(setup: Setup, form: str, dtype: str) -> Row:
    """One form against its reference. lora_B is drawn, or lora_A would have no gradient."""
    spec = mixtral(setup, dtype, four_bit=form)
    packed = load_model(Path(spec.name), spec)
    plain = mixtral(setup, dtype, separate_experts=True)
    reference = load_model(Path(plain.name), plain)
    write_out(packed, reference)
    bits = {group.name: group.bytes * 8 / group.parameters for group in sizes(packed)}
    ids = torch.randint(3, 400, (2, 64 if setup.tiny else 512), generator=torch.Generator().manual_seed(0))
    found, seconds = [], []
    for model in (packed, reference):
        adapted = with_adapter(model)
        batch = {"input_ids": ids.to(setup.device), "labels": ids.to(setup.device)}
        with torch.no_grad():
            logits = adapted(input_ids=batch["input_ids"]).logits

        def step(adapted: Any = adapted, batch: dict[str, torch.Tensor] = batch) -> None:
            adapted.zero_grad()
            loss, count = summed_loss(adapted, batch)
            (loss / count).backward()

        step()
        seconds.append(measured(step, setup.device)[0])
        gradients = {name: p.grad for name, p in adapted.named_parameters() if p.grad is not None}
        found.append((logits, gradients))
    (logits, gradients), (wanted, wanted_gradients) = found
    assert gradients.keys() == wanted_gradients.keys()
    return {
        "bits of an expert's weight": bits["experts"],
        "logits off by": apart([logits], [wanted]),
        "gradients off by": apart([gradients[n] for n in gradients], [wanted_gradients[n] for n in gradients]),
        "s a step": seconds[0],
        "s written out": seconds[1],
    }


def with_adapter(model: Any) -> Any:
    """LoRA, equal for equal modules."""
    adapted = add_adapter(model, SETTINGS, seed=0).eval()
    dice = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "lora_B" in name:
                weight.copy_(torch.randn(weight.shape, generator=dice) * 0.02)
    return adapted


def write_out(packed: Any, reference: Any) -> None:
    """Give the reference the weights that the 4-bit ones stand for."""
    from bitsandbytes.functional import dequantize_4bit

    own = dict(reference.named_parameters())
    with torch.no_grad():
        for name, weight in packed.named_parameters():
            state = getattr(weight, "quant_state", None)
            own[name].copy_(weight if state is None else dequantize_4bit(weight.data, state))


def apart(some: list[torch.Tensor], others: list[torch.Tensor]) -> float:
    """The norm of the differences over that of the others."""
    pairs = [(one.double(), other.double()) for one, other in zip(some, others, strict=True)]
    off = sum(float((one - other).square().sum()) for one, other in pairs)
    return float((off / sum(float(other.square().sum()) for _, other in pairs)) ** 0.5)
