"""The memory plan, made from shapes, against what a real model and a real step hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny_rows import SHORT

from bench.held import held_alone
from reseed.models.names import ModelSpec, Upcycle
from reseed.settings import TrainingSettings
from reseed.training.memory import plan as memory_plan
from reseed.training.memory.activations import activation_bytes
from reseed.training.memory.plan import plan_memory, scale_bytes, shape_of
from reseed.training.zero.settings import BUCKET

SETTINGS = SHORT.model_copy(update={"max_tokens": 128})
TARGETS = {"attention": SHORT.targets, "experts": ("gate_proj", "up_proj", "down_proj")}


def spec_of(model: Path, **changes: Any) -> ModelSpec:
    spec = ModelSpec(name=str(model), dtype="float32", upcycle=Upcycle(experts=4, top_k=2))
    return spec.model_copy(update=changes)


@pytest.mark.parametrize("four_bit", [None, "nf4", "nf4-double"])
@pytest.mark.parametrize("targets", TARGETS)
def test_the_plan_agrees_with_a_real_step(tiny_model: Path, targets: str, four_bit: Any) -> None:
    settings = SETTINGS.model_copy(update={"targets": TARGETS[targets]})
    spec = spec_of(tiny_model, four_bit=four_bit, separate_experts=targets == "experts")
    plan = plan_memory(spec, settings, rows=2, labels=16, worlds={0: 1})[0]
    real = held_alone(spec, settings, rows=2, labels=16)
    assert plan.weights == pytest.approx(real.weights, rel=0.01)
    assert (plan.adapters, plan.gradients, plan.optimizer) == (real.adapters, real.gradients, real.optimizer)
    assert plan.activations == pytest.approx(real.activations, rel=0.1)


def test_the_plan_knows_what_a_soft_cap_costs(tmp_path: Path) -> None:
    """Attention with one keeps every score."""
    from transformers import Gemma2Config, Gemma2ForCausalLM

    config = Gemma2Config(
        vocab_size=300, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8,
    )  # fmt: skip
    Gemma2ForCausalLM(config).save_pretrained(tmp_path)
    spec = ModelSpec(name=str(tmp_path), dtype="float32")
    plan = plan_memory(spec, SETTINGS, rows=2, labels=16, worlds={0: 1})[0]
    assert plan.activations == pytest.approx(held_alone(spec, SETTINGS, 2, 16).activations, rel=0.1)


def test_zero_shares_what_its_stage_says(tiny_model: Path) -> None:
    none, one, two, three = plan_memory(spec_of(tiny_model), SETTINGS, 1, 16, {0: 1, 1: 2, 2: 2, 3: 2})
    states, bucket = none.optimizer * 12 // 8 // 2, 4 * BUCKET  # DeepSpeed has a copy of the weights beside two moments
    assert (one.optimizer, one.gradients - bucket, one.weights) == (states, none.gradients, none.weights)
    assert (two.optimizer, two.gradients - bucket, two.weights) == (states, none.gradients // 2, none.weights)
    assert (three.optimizer, three.gradients, three.adapters) == (states, two.gradients, none.adapters * 3 // 2)
    assert three.weights == pytest.approx(none.weights // 2, rel=0.02)  # norms and routers are whole
    assert three.gathered == pytest.approx(none.weights, rel=0.02)


def test_what_is_gathered_at_once_is_limited(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without gradient checkpointing autograd keeps fused experts whole, whatever DeepSpeed releases."""
    monkeypatch.setattr(memory_plan, "LIVE", 0)
    checkpointed = SETTINGS.model_copy(update={"gradient_checkpointing": True})

    def gathered(settings: TrainingSettings, **changes: Any) -> int:
        return plan_memory(spec_of(tiny_model, **changes), settings, 1, 16, {3: 2})[0].gathered

    assert gathered(SETTINGS, separate_experts=True) < gathered(checkpointed) < gathered(SETTINGS)


def test_one_rank_gathers_nothing(tiny_model: Path) -> None:
    none, three = plan_memory(spec_of(tiny_model), SETTINGS, 1, 16, {0: 1, 3: 1})
    assert (three.gathered, three.weights, three.adapters) == (0, none.weights, none.adapters)


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
    assert all(away.host > here.optimizer for away, here in zip(states, plain, strict=True))  # gradients beside it
    assert all(plan.optimizer == 0 for plan in states)
    moved = plain[1].weights + plain[1].adapters - whole[1].weights - whole[1].adapters
    assert whole[1].host - states[1].host == moved
    assert whole[1].weights < 0.5 * plain[1].weights
