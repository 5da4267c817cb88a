"""Stages: an adapter that continues another member's, on other rows."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from tiny_rows import PROBLEM, SHORT, PowerError, Recorder, job, rows

from reseed.models.adapters import adapter_digest, add_adapter, continue_adapter
from reseed.models.cache import materialise
from reseed.models.loading import load_model
from reseed.records import ReseedError
from reseed.settings import TrainingSettings
from reseed.training.job import TrainSummary
from reseed.training.loop import train

ADAPTER = "adapter_model.safetensors"
DROPPING = SHORT.model_copy(update={"dropout": 0.1, "epochs": 2})


def run(
    place: Path,
    model: Path,
    start: Path | None,
    seed: int = 0,
    resume: Path | None = None,
    stop_after: int | None = None,
    settings: TrainingSettings = DROPPING,
) -> TrainSummary:
    """A stage: the first on rows 0 to 11, a later one on rows 20 to 31, chosen by the same validation rows."""
    own = rows(12) if start is None else rows(32)[20:]
    what, watcher = job(model, seed, settings), Recorder(place / "seen", stop_after)
    summary = train(what, PROBLEM, own, rows(16)[12:], place / "work", watcher, resume, start)
    assert summary is not None
    return summary


@pytest.fixture(scope="module")
def first(tiny_model: Path, shared_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first stage's folder."""
    place = tmp_path_factory.mktemp("first")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RESEED_CACHE", str(shared_cache))
        run(place, tiny_model, None)
    return place


@pytest.fixture
def best(first: Path) -> Path:
    """What the store holds of it."""
    return first / "work" / "best"


def test_it_begins_with_the_other_s_adapter_to_the_bit(tiny_model: Path, best: Path) -> None:
    spec = job(tiny_model).model
    model = continue_adapter(load_model(materialise(spec), spec), DROPPING, 0, best / "adapter")
    stored = load_file(best / "adapter" / ADAPTER)
    own = {n.replace(".default", ""): w for n, w in model.named_parameters() if w.requires_grad}
    assert own.keys() == stored.keys()
    assert all(own[name].equal(stored[name]) for name in stored)
    assert {module.p for module in model.modules() if isinstance(module, torch.nn.Dropout)} == {0.1}
    stock = PeftModel.from_pretrained(load_model(materialise(spec), spec), best / "adapter")
    assert adapter_digest(model) == adapter_digest(stock)
    fresh = add_adapter(load_model(materialise(spec), spec), DROPPING, 0)
    names = {kind.peft_config["default"].base_model_name_or_path for kind in (model, fresh)}
    assert len(names) == 1, "a checkpoint that names another base makes PEFT ask the hub"


def test_a_second_stage_is_better_from_its_first_step(
    tiny_model: Path, first: Path, best: Path, tmp_path: Path
) -> None:
    loss = json.loads((best / "best.json").read_text())["loss"]
    gentle = DROPPING.model_copy(update={"learning_rate": 1e-4})
    gone_on = run(tmp_path / "on", tiny_model, best, settings=gentle)
    anew = run(tmp_path / "anew", tiny_model, None, settings=gentle)
    assert gone_on.best_loss < anew.best_loss
    assert gone_on.best_loss == pytest.approx(loss, rel=0.05), "so small a step does not unlearn"
    assert gone_on.adapter_digest_start != anew.adapter_digest_start
    assert (best / "adapter" / ADAPTER).read_bytes() != (
        tmp_path / "on" / "work" / "best" / "adapter" / ADAPTER
    ).read_bytes()


def test_equal_seeds_give_equal_bits_and_others_do_not(tiny_model: Path, best: Path, tmp_path: Path) -> None:
    one, same, other = (run(tmp_path / n, tiny_model, best, seed) for n, seed in (("a", 0), ("b", 0), ("c", 1)))
    assert one == same
    assert one.adapter_digest_start == other.adapter_digest_start, "where they begin is the first stage's seed"
    assert one.curve[0] != other.curve[0], "order and dropout are this stage's"


def test_a_stage_that_was_stopped_goes_on_as_if_it_had_not(tiny_model: Path, best: Path, tmp_path: Path) -> None:
    undisturbed = run(tmp_path / "undisturbed", tiny_model, best)
    with pytest.raises(PowerError):
        run(tmp_path / "stopped", tiny_model, best, stop_after=2)
    resumed = run(tmp_path / "resumed", tiny_model, best, resume=tmp_path / "stopped" / "seen" / "step-2")
    assert resumed == undisturbed


KEEPING = SHORT.model_copy(update={"epochs": 1, "keep_optimizer": True, "evaluate_every": 1, "warmup_steps": 0})


@pytest.fixture(scope="module")
def keeping(tiny_model: Path, shared_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A first stage that stored its optimiser's state."""
    place = tmp_path_factory.mktemp("keeping")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RESEED_CACHE", str(shared_cache))
        run(place, tiny_model, None, settings=KEEPING)
    return place


def test_the_optimiser_s_state_is_that_of_the_best_step(keeping: Path) -> None:
    best = keeping / "work" / "best"
    step = json.loads((best / "best.json").read_text())["step"]
    own = torch.load(keeping / "seen" / f"step-{step}" / "state" / "optimizer.pt", weights_only=True)["state"]
    kept = load_file(best / "optimizer.safetensors")
    assert kept.pop("step").item() == step
    assert len(kept) == 2 * len(own)
    for moment in ("exp_avg", "exp_avg_sq"):
        stored = sorted(float(value.sum()) for name, value in kept.items() if name.endswith(f"/{moment}"))
        assert stored == sorted(float(state[moment].sum()) for state in own.values())


def test_the_optimiser_goes_on_with_its_state_only_where_asked(tiny_model: Path, keeping: Path, tmp_path: Path) -> None:
    """With its moments, the first step keeps the old direction; without, it is one of full length by sign alone."""
    best = keeping / "work" / "best"
    begun = load_file(best / "adapter" / ADAPTER)
    moved = {}
    for keep in (True, False):
        settings = KEEPING.model_copy(update={"keep_optimizer": keep, "learning_rate": 1e-3})
        run(tmp_path / str(keep), tiny_model, best, settings=settings)
        after = load_file(tmp_path / str(keep) / "seen" / "step-1" / "state" / ADAPTER)
        moved[keep] = torch.cat([(after[name] - begun[name]).flatten().abs() for name in begun])
        assert (tmp_path / str(keep) / "work" / "best" / "optimizer.safetensors").exists() == keep
    nearly_all = moved[False] > 0.9e-3
    assert float(nearly_all.float().mean()) > 0.9, "Adam's first step"
    assert float((moved[True] > 0.9e-3).float().mean()) < 0.5
    kept = load_file(tmp_path / "True" / "work" / "best" / "optimizer.safetensors")
    first = load_file(best / "optimizer.safetensors")["step"].item()
    assert kept["step"].item() > first, "it counts on"


def test_an_adapter_without_the_optimiser_s_state_is_refused_where_it_is_wanted(
    tiny_model: Path, best: Path, tmp_path: Path
) -> None:
    with pytest.raises(ReseedError, match=r"keep_optimizer: the adapter to start from was stored without"):
        run(tmp_path, tiny_model, best, settings=KEEPING)


@pytest.mark.parametrize("rslora", [False, True])
def test_experts_go_on_too(tiny_model: Path, tmp_path: Path, rslora: bool) -> None:
    """Stored under a checkpoint's names, they come back under the modules'; the scaling stays what it was."""
    targets = ("q_proj", "gate_proj", "up_proj", "down_proj")
    settings = SHORT.model_copy(update={"targets": targets, "rslora": rslora})
    what = job(tiny_model, settings=settings)
    what = replace(what, model=what.model.model_copy(update={"separate_experts": True}))
    losses = []
    start: Path | None = None
    for place in (tmp_path / "one", tmp_path / "two"):
        seen = Recorder(place / "seen")
        summary = train(what, PROBLEM, rows(12), rows(16)[12:], place / "work", seen, start=start)
        assert summary is not None
        losses.append(summary.best_loss)
        start = place / "work" / "best"
    assert losses[1] < losses[0]
    model = continue_adapter(
        load_model(materialise(what.model), what.model), settings, 0, tmp_path / "one/work/best/adapter"
    )
    (scaling,) = {module.scaling["default"] for module in model.modules() if hasattr(module, "lora_A")}
    assert scaling == pytest.approx(16 / 8**0.5 if rslora else 2.0)
    stored = load_file(tmp_path / "one/work/best/adapter" / ADAPTER)
    own = [weight for name, weight in model.named_parameters() if weight.requires_grad]
    assert sorted(float(w.detach().norm()) for w in own) == sorted(float(w.norm()) for w in stored.values())
