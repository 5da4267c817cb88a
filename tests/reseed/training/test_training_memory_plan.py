"""The memory plan, made from shapes, against what a real model and a real step hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_rows import SHORT

from reseed.models.cache import materialise
from reseed.models.loading import load_model
from reseed.models.names import ModelSpec, Upcycle
from reseed.models.sizes import sizes
from reseed.training.adapters import add_adapter
from reseed.training.memory_plan import activation_bytes, plan_memory, scale_bytes, shape_of

SETTINGS = SHORT.model_copy(update={"max_tokens": 128})
TARGETS = {"attention": SHORT.targets, "experts": ("gate_proj", "up_proj", "down_proj")}


def spec_of(model: Path, **changes: Any) -> ModelSpec:
    spec = ModelSpec(name=str(model), dtype="float32", upcycle=Upcycle(experts=4, top_k=2))
    return spec.model_copy(update=changes)


def kept_by_a_real_step(model: Any, rows: int, tokens: int, labels: int) -> int:
    """Bytes of all tensors that autograd holds, each storage once, parameters apart."""
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage
        return tensor

    ids = torch.randint(0, 300, (rows, tokens), generator=torch.Generator().manual_seed(0))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        embedded = model.get_input_embeddings()(ids).requires_grad_(True)
        logits = model(inputs_embeds=embedded, logits_to_keep=labels, use_cache=False).logits
        torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), ids[:, -labels:].flatten(), reduction="sum")
    return sum(storage.nbytes() for storage in kept.values())


@pytest.mark.parametrize("four_bit", [None, "nf4", "nf4-double"])
@pytest.mark.parametrize("targets", TARGETS)
def test_the_plan_agrees_with_a_real_step(tiny_model: Path, targets: str, four_bit: Any) -> None:
    settings = SETTINGS.model_copy(update={"targets": TARGETS[targets]})
    spec = spec_of(tiny_model, four_bit=four_bit, separate_experts=targets == "experts")
    plan = plan_memory(spec, settings, rows=2, labels=16, worlds={0: 1})[0]
    model = add_adapter(load_model(materialise(spec), spec), settings, seed=0).train()
    measured = {group.name: group.bytes for group in sizes(model)}
    adapter = measured.pop("adapter")
    assert plan.weights == pytest.approx(sum(measured.values()), rel=0.01)
    assert plan.adapters == adapter
    assert plan.activations == pytest.approx(kept_by_a_real_step(model, 2, 128, 16), rel=0.1)


def test_the_optimizer_and_gradients_are_those_of_a_real_step(tiny_model: Path) -> None:
    spec = spec_of(tiny_model)
    plan = plan_memory(spec, SETTINGS, rows=1, labels=16, worlds={0: 1})[0]
    model = add_adapter(load_model(materialise(spec), spec), SETTINGS, seed=0).train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained)
    model(torch.zeros(1, 8, dtype=torch.long)).logits.sum().backward()
    optimizer.step()
    held = [tensor for state in optimizer.state.values() for tensor in state.values() if tensor.ndim > 0]
    assert plan.optimizer == sum(tensor.nbytes for tensor in held)
    assert plan.gradients == sum(p.grad.nbytes for p in trained if p.grad is not None)


def test_zero_shares_what_its_stage_says(tiny_model: Path) -> None:
    none, one, two, three = plan_memory(spec_of(tiny_model), SETTINGS, 1, 16, {0: 1, 1: 2, 2: 2, 3: 2})
    states = none.optimizer * 12 // 8 // 2  # DeepSpeed keeps a copy of the weights beside the two moments
    assert (one.optimizer, one.gradients, one.weights) == (states, none.gradients, none.weights)
    assert (two.optimizer, two.gradients, two.weights) == (one.optimizer, none.gradients // 2, none.weights)
    assert (three.gradients, three.weights, three.adapters) == (two.gradients, none.weights // 2, none.adapters // 2)
    assert three.total - three.gathered < two.total < one.total
    assert 0 < three.gathered < none.weights


def test_gradient_checkpointing_keeps_the_layers_inputs_and_one_layer(tiny_model: Path) -> None:
    model = shape_of(spec_of(tiny_model), SETTINGS)
    whole, checkpointed = (activation_bytes(model, 2, 128, 16, checkpointing) for checkpointing in (False, True))
    assert checkpointed < 0.75 * whole  # of two layers


def test_mixtral_8x7b_fits_one_large_card_in_4_bit(tmp_path: Path) -> None:
    from transformers import MixtralConfig

    MixtralConfig().save_pretrained(tmp_path / "shape")  # the true shape is transformers' default
    spec = ModelSpec(name=str(tmp_path / "shape"), four_bit="nf4-double")
    settings = SHORT.model_copy(update={"max_tokens": 1024, "gradient_checkpointing": True})
    plan = plan_memory(spec, settings, rows=1, labels=1024, worlds={0: 1})[0]
    assert 46.7e9 * 4 / 8 < plan.weights < 46.7e9 * 4.3 / 8
    assert plan.total < 40e9


def test_scales_take_half_a_bit_a_weight_and_an_eighth_when_they_are_quantised_too() -> None:
    assert scale_bytes(2**20, double=False) * 8 / 2**20 == 0.5
    assert scale_bytes(2**20, double=True) * 8 / 2**20 == pytest.approx(0.127, abs=0.001)


def test_what_is_offloaded_is_counted_on_the_host(tiny_model: Path) -> None:
    spec, stages = spec_of(tiny_model, four_bit="nf4"), {2: 2, 3: 2}
    plain = plan_memory(spec, SETTINGS, 1, 16, stages)
    states = plan_memory(spec, SETTINGS.model_copy(update={"offload": "optimizer"}), 1, 16, stages)
    whole = plan_memory(spec, SETTINGS.model_copy(update={"offload": "parameters"}), 1, 16, stages)
    assert [plan.host for plan in states] == [plan.optimizer for plan in plain]
    assert all(plan.optimizer == 0 for plan in states)
    assert whole[1].total + whole[1].host == plain[1].total
    assert whole[1].weights < 0.3 * plain[1].weights
