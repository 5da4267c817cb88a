"""Optimiser, schedule and precision: what the recipe says is what runs, and what a place cannot run is refused."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny_rows import PROBLEM, SHORT, Recorder, job, rows

from reseed.models.adapters import add_adapter
from reseed.models.cache import materialise
from reseed.models.loading import load_model
from reseed.models.names import ModelSpec
from reseed.records import ReseedError
from reseed.settings import TrainingSettings
from reseed.training.arguments import check_place, optimisation, precision
from reseed.training.job import Silent, TrainSummary
from reseed.training.loop import train

TWELVE = SHORT.model_copy(update={"epochs": 4, "evaluate_every": 4})  # twelve steps of four rows


def run(place: Path, model: Path, settings: TrainingSettings) -> tuple[TrainSummary, Path]:
    """The summary, and the folder of the last checkpoint's state."""
    watcher = Recorder(place / "seen")
    summary = train(
        job(model, settings=settings, sparse=False), PROBLEM, rows(12), rows(16)[12:], place / "work", watcher
    )
    assert summary is not None
    return summary, watcher.folder / f"step-{watcher.steps[-1]}" / "state"


def weights(state: Path) -> dict[str, torch.Tensor]:
    return dict(load_file(state / "adapter_model.safetensors"))


def change(**settings: Any) -> TrainingSettings:
    return TWELVE.model_copy(update=settings)


def half_cosine(part: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * part))


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        (change(warmup_steps=3), lambda done: 1 - done),
        (change(schedule="cosine", warmup_steps=3), half_cosine),
        (change(schedule="cyclic", cycles=3, warmup_steps=3), lambda done: half_cosine(3 * done % 1)),
    ],
    ids=["linear", "cosine", "cyclic"],
)
def test_the_learning_rate_follows_the_schedule(
    tiny_model: Path, tmp_path: Path, settings: TrainingSettings, wanted: Any
) -> None:
    _, state = run(tmp_path, tiny_model, settings)
    history = json.loads((state / "trainer_state.json").read_text())["log_history"]
    rates = [point["learning_rate"] / settings.learning_rate for point in history if "learning_rate" in point]
    falling = [wanted(step / 9) for step in range(9)]
    assert rates == pytest.approx([0, 1 / 3, 2 / 3, *falling], abs=1e-6)


def test_weight_decay_and_clipping_reach_the_optimiser(tiny_model: Path, tmp_path: Path) -> None:
    _, plain = run(tmp_path / "plain", tiny_model, change(epochs=2))
    _, decayed = run(tmp_path / "decayed", tiny_model, change(epochs=2, weight_decay=10.0))
    _, clipped = run(tmp_path / "clipped", tiny_model, change(epochs=2, max_grad_norm=1e-12))
    _, free = run(tmp_path / "free", tiny_model, change(epochs=2, max_grad_norm=0.0))
    size = {
        state: sum(float(w.norm()) for name, w in weights(state).items() if "lora_B" in name)
        for state in (plain, decayed, clipped, free)
    }
    assert size[decayed] < 0.9 * size[plain]
    assert size[clipped] < 0.01 * size[plain], "such small gradients drown in Adam's epsilon"
    assert size[free] == size[plain], "no gradient here is longer than 1"


def test_rank_stabilised_scaling_grows_with_the_root_of_the_rank(tiny_model: Path) -> None:
    spec = job(tiny_model).model
    for settings, wanted in ((change(rank=16, alpha=8), 0.5), (change(rank=16, alpha=8, rslora=True), 2.0)):
        model = add_adapter(load_model(materialise(spec), spec), settings, 0)
        scalings = {module.scaling["default"] for module in model.modules() if hasattr(module, "lora_A")}
        assert scalings == {wanted}


@pytest.mark.parametrize("settings", [change(rslora=True), change(dora=True, dropout=0.1)], ids=["rslora", "dora"])
def test_the_variants_of_lora_train_and_are_saved_whole(
    tiny_model: Path, tmp_path: Path, settings: TrainingSettings
) -> None:
    summary, state = run(tmp_path, tiny_model, settings)
    losses = [point.validation for point in summary.curve if point.validation is not None]
    assert losses[-1] < losses[0]
    assert summary.logit_shift > 1e-3, "stock PEFT loads it"
    assert any("magnitude" in name for name in weights(state)) == settings.dora


def test_gradient_checkpointing_changes_no_result(tiny_model: Path, tmp_path: Path) -> None:
    """Not to the bit: the backward pass adds in another order. Dropout draws the same numbers again."""
    (plain, state), (spared, other) = (
        run(tmp_path / str(on), tiny_model, change(gradient_checkpointing=on, dropout=0.1, epochs=2))
        for on in (False, True)
    )
    assert plain.adapter_digest_start == spared.adapter_digest_start
    one, two = ([point.train or point.validation for point in curve] for curve in (plain.curve, spared.curve))
    assert one == pytest.approx(two, rel=1e-5)
    for name, weight in weights(state).items():
        torch.testing.assert_close(weights(other)[name], weight, rtol=1e-3, atol=1e-5)


def test_gradient_checkpointing_keeps_fewer_activations(tiny_model: Path) -> None:
    """What autograd keeps between the forward and the backward pass, counted."""
    spec = job(tiny_model).model
    kept = {}
    for on in (False, True):
        model = add_adapter(load_model(materialise(spec), spec), change(dropout=0.1), 0).train()
        if on:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        held: dict[int, int] = {}

        def keep(tensor: torch.Tensor, held: dict[int, int] = held) -> torch.Tensor:
            held[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            model(torch.arange(200).reshape(2, 100), logits_to_keep=1)
        kept[on] = sum(held.values())
    assert kept[True] < 0.5 * kept[False]


@pytest.mark.parametrize("name", ["adamw-8bit", "paged-adamw-8bit"])
def test_an_8_bit_optimiser_without_a_gpu_is_refused_before_anything_is_loaded(tmp_path: Path, name: str) -> None:
    with pytest.raises(ReseedError, match=rf"training\.optimizer: '{name}' needs a GPU.* choose adamw"):
        train(job(tmp_path / "none", settings=change(optimizer=name)), PROBLEM, [], [], tmp_path, Silent())


def test_float16_without_a_gpu_is_refused() -> None:
    half = ModelSpec(name="some/model", dtype="float16")
    with pytest.raises(
        ReseedError, match=r"model 'some/model': float16 is trained on a GPU only.* bfloat16 or float32"
    ):
        check_place(TWELVE, half, cuda=False)
    check_place(change(optimizer="adamw-8bit"), half, cuda=True)


def test_each_optimiser_is_the_one_of_its_name() -> None:
    from transformers.training_args import OptimizerNames

    named = {
        name: optimisation(change(optimizer=name))["optim"] for name in ("adamw", "adamw-8bit", "paged-adamw-8bit")
    }
    known = {name: OptimizerNames(value) for name, value in named.items()}
    assert known == {
        "adamw": OptimizerNames.ADAMW_TORCH_FUSED,
        "adamw-8bit": OptimizerNames.ADAMW_BNB,
        "paged-adamw-8bit": OptimizerNames.PAGED_ADAMW_8BIT,
    }


def test_precision_follows_the_model(tiny_model: Path) -> None:
    """The Trainer's loss scale is for float16 alone; DeepSpeed and the Trainer must agree on the format."""
    assert precision("float32") == {"bf16": False, "fp16": False}
    assert precision("bfloat16") == {"bf16": True, "fp16": False}
    assert precision("float16") == {"bf16": False, "fp16": True}
    spec = job(tiny_model).model
    for dtype in ("bfloat16", "float16"):
        half = spec.model_copy(update={"dtype": dtype})
        model = add_adapter(load_model(materialise(spec), half), TWELVE, 0)
        kinds = {w.requires_grad: w.dtype for w in model.parameters()}
        assert kinds == {True: torch.float32, False: getattr(torch, dtype)}


def test_bfloat16_trains_on_the_cpu(tiny_model: Path, tmp_path: Path) -> None:
    what = job(tiny_model, settings=TWELVE)
    half = what.__class__(**{**vars(what), "model": what.model.model_copy(update={"dtype": "bfloat16"})})
    summary = train(half, PROBLEM, rows(12), rows(16)[12:], tmp_path / "work", Silent())
    assert summary is not None
    losses = [point.validation for point in summary.curve if point.validation is not None]
    assert losses[-1] < losses[0]


def test_dora_on_experts_is_refused_as_stock_peft_could_not_load_it(tiny_model: Path) -> None:
    what = job(tiny_model).model.model_copy(update={"separate_experts": True})
    model = load_model(materialise(what), what)
    settings = change(dora=True, targets=("q_proj", "gate_proj", "up_proj"))
    with pytest.raises(
        ReseedError, match=r"training\.dora: stock PEFT cannot load DoRA onto .* experts; leave dora out"
    ):
        add_adapter(model, settings, 0)
    assert add_adapter(model, settings.model_copy(update={"targets": ("q_proj",)}), 0) is not None
