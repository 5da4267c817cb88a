"""One seed gives one adapter, to the last bit; a stopped run resumes as if it had not stopped; the best step is kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from peft import PeftModel
from safetensors.torch import load_file
from tiny_rows import PROBLEM, SHORT, PowerError, Recorder, job, rows

from reseed.language.tokens import encode
from reseed.models.cache import materialise
from reseed.models.loading import load_model
from reseed.models.tokenizers import load_tokenizer
from reseed.records import ReseedError
from reseed.settings import TrainingSettings
from reseed.training.job import TrainJob, TrainSummary
from reseed.training.layout import Layout
from reseed.training.loop import train
from reseed.training.loss import evaluation_loss

ADAPTER = "adapter_model.safetensors"
DROPPING = SHORT.model_copy(update={"dropout": 0.1, "epochs": 2})  # dropout draws random numbers in every step

RICH = DROPPING.model_copy(
    update={"gradient_checkpointing": True, "dora": True, "schedule": "cyclic", "weight_decay": 0.1, "patience": 2}
)


def run(
    place: Path, what: TrainJob, resume: Path | None = None, stop_after: int | None = None
) -> tuple[TrainSummary, Recorder]:
    watcher = Recorder(place / "seen", stop_after)
    summary = train(what, PROBLEM, rows(12), rows(16)[12:], place / "work", watcher, resume)
    assert summary is not None
    return summary, watcher


def last_adapter(watcher: Recorder) -> bytes:
    return (watcher.folder / f"step-{watcher.steps[-1]}" / "state" / ADAPTER).read_bytes()


def best_adapter(place: Path) -> bytes:
    return (place / "work" / "best" / "adapter" / ADAPTER).read_bytes()


@pytest.mark.parametrize("settings", [DROPPING, RICH], ids=["plain", "rich"])
def test_one_seed_one_adapter(tiny_model: Path, tmp_path: Path, settings: TrainingSettings) -> None:
    (first, seen), (second, again) = (run(tmp_path / n, job(tiny_model, settings=settings)) for n in "ab")
    assert first == second, "digest before the first step, curve, best step and all the rest"
    assert last_adapter(seen) == last_adapter(again)
    assert best_adapter(tmp_path / "a") == best_adapter(tmp_path / "b")


def test_another_seed_another_adapter_and_another_order(tiny_model: Path, tmp_path: Path) -> None:
    (one, seen), (other, different) = (run(tmp_path / str(seed), job(tiny_model, seed)) for seed in (0, 1))
    assert one.adapter_digest_start != other.adapter_digest_start
    assert one.curve[0].step == other.curve[0].step == 1
    assert one.curve[0].train != other.curve[0].train, "the first batch holds other rows"
    assert last_adapter(seen) != last_adapter(different)


def test_split_seeds_change_one_thing_each(tiny_model: Path, tmp_path: Path) -> None:
    whole = job(tiny_model, settings=DROPPING)
    runs = {
        name: run(tmp_path / name, replace(whole, seed=seed, order=order))
        for name, seed, order in (("whole", 0, None), ("split", 0, 0), ("order", 0, 1), ("start", 1, 0))
    }
    summaries = {name: summary for name, (summary, _) in runs.items()}
    assert last_adapter(runs["split"][1]) == last_adapter(runs["whole"][1]), "a seed is both of its parts"
    assert summaries["order"].adapter_digest_start == summaries["split"].adapter_digest_start
    assert summaries["order"].curve[0].train != summaries["split"].curve[0].train, "the first batch holds other rows"
    assert summaries["start"].adapter_digest_start != summaries["split"].adapter_digest_start
    assert summaries["start"].curve[0].train == summaries["split"].curve[0].train, "LoRA changes nothing before a step"
    assert len({last_adapter(seen) for _, seen in runs.values()}) == 3


def test_evaluating_more_often_trains_the_same(tiny_model: Path, tmp_path: Path) -> None:
    often = DROPPING.model_copy(update={"evaluate_every": 1})
    _, rarely_seen = run(tmp_path / "rarely", job(tiny_model, settings=DROPPING))
    _, often_seen = run(tmp_path / "often", job(tiny_model, settings=often))
    assert (rarely_seen.steps, often_seen.steps) == ([2, 4, 6], [1, 2, 3, 4, 5, 6])
    assert last_adapter(rarely_seen) == last_adapter(often_seen)


# 12 rows: six steps of four rows, two epochs; twelve steps of one row whose losses are told at every second step; or
# twenty steps of two rows, stopped in the middle of the second of four epochs
ODD = DROPPING.model_copy(update={"epochs": 1, "batch_size": 1, "evaluate_every": 9})

LONG = DROPPING.model_copy(update={"epochs": 20 / 6, "batch_size": 2, "evaluate_every": 5})


@pytest.mark.parametrize(("settings", "stop_after"), [(DROPPING, 2), (DROPPING, 4), (ODD, 9), (LONG, 10)])
def test_a_stopped_run_goes_on_as_if_it_had_not(
    tiny_model: Path, tmp_path: Path, settings: TrainingSettings, stop_after: int
) -> None:
    what = job(tiny_model, settings=settings)
    undisturbed, seen = run(tmp_path / "undisturbed", what)
    with pytest.raises(PowerError):
        run(tmp_path / "stopped", what, stop_after=stop_after)
    checkpoint = tmp_path / "stopped" / "seen" / f"step-{stop_after}"
    resumed, seen_again = run(tmp_path / "resumed", what, resume=checkpoint)
    assert seen_again.steps == [step for step in seen.steps if step > stop_after], "it did not begin anew"
    assert last_adapter(seen_again) == last_adapter(seen)
    assert best_adapter(tmp_path / "resumed") == best_adapter(tmp_path / "undisturbed")
    assert resumed == undisturbed
    assert seen_again.points == [point for point in seen.points if point.step > stop_after]


def test_a_checkpoint_holds_no_path_of_the_run_that_wrote_it(tiny_model: Path, tmp_path: Path) -> None:
    """The folder that was trained in is gone when a run resumes, and so may be its machine."""
    what = job(tiny_model, settings=DROPPING)
    with pytest.raises(PowerError):
        run(tmp_path / "stopped", what, stop_after=2)
    (tmp_path / "stopped" / "seen" / "step-2").rename(tmp_path / "moved")
    (tmp_path / "stopped").rename(tmp_path / "gone")
    summary, watcher = run(tmp_path / "resumed", what, resume=tmp_path / "moved")
    assert watcher.steps == [4, 6]
    assert summary.steps == 6


def test_the_best_step_is_kept(tiny_model: Path, tmp_path: Path) -> None:
    steep = SHORT.model_copy(update={"epochs": 4, "learning_rate": 1.0, "warmup_steps": 12, "evaluate_every": 1})
    summary, watcher = run(tmp_path, job(tiny_model, settings=steep))
    losses = {point.step: point.validation for point in summary.curve if point.validation is not None}
    assert list(losses) == list(range(1, 13))
    assert [point.step for point in summary.curve if point.train is not None] == list(losses)
    assert list(summary.curve) == watcher.points, "whoever watches sees what is recorded"
    best = min(losses, key=lambda step: losses[step] or 0.0)
    assert best != 12, "the settings are meant to overshoot, or this test shows nothing"
    assert (summary.best_step, summary.best_loss) == (best, losses[best])
    kept = load_file(tmp_path / "work" / "best" / "adapter" / ADAPTER)
    then = load_file(watcher.folder / f"step-{best}" / "state" / ADAPTER)
    last = load_file(watcher.folder / "step-12" / "state" / ADAPTER)
    assert kept.keys() == then.keys()
    assert all(kept[name].equal(then[name]) for name in kept)
    assert not all(kept[name].equal(last[name]) for name in kept)


def test_the_best_loss_is_that_of_the_kept_adapter(tiny_model: Path, tmp_path: Path) -> None:
    what = job(tiny_model)
    summary, _ = run(tmp_path, what)
    folder = materialise(what.model)
    tokenizer = load_tokenizer(folder)
    adapted = PeftModel.from_pretrained(load_model(folder, what.model), tmp_path / "work" / "best" / "adapter")
    examples = encode(PROBLEM, rows(16)[12:], tokenizer, SHORT.max_tokens, "completion").examples
    assert evaluation_loss(adapted, examples, Layout(tokenizer.pad_token_id), 1) == pytest.approx(
        summary.best_loss, rel=1e-5
    )


def test_the_last_step_is_evaluated_and_saved_whatever_the_interval(tiny_model: Path, tmp_path: Path) -> None:
    summary, watcher = run(tmp_path, job(tiny_model, settings=SHORT.model_copy(update={"evaluate_every": 100})))
    assert summary.steps == 3
    assert watcher.steps == [3]
    assert [point.step for point in summary.curve if point.validation is not None] == [3]


@pytest.mark.parametrize("evaluate_every", [1, 3])
def test_a_loss_that_is_no_number_ends_the_run_with_its_step(
    tiny_model: Path, tmp_path: Path, evaluate_every: int
) -> None:
    wild = SHORT.model_copy(update={"learning_rate": 1e30, "evaluate_every": evaluate_every})
    with pytest.raises(ReseedError, match=r"loss is (nan|inf) at step [12][,;].* lower training\.learning_rate"):
        run(tmp_path, job(tiny_model, settings=wild))


def test_a_batch_that_cannot_be_shared_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(ReseedError, match=r"training\.batch_size: 4 rows a step cannot be shared .* multiple of 3"):
        run(tmp_path, job(tiny_model, micro=3))


def test_rows_longer_than_the_model_s_context_are_refused(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(ReseedError, match=r"training\.max_tokens: 2000 is more than the model's context of 1024"):
        run(tmp_path, job(tiny_model, settings=SHORT.model_copy(update={"max_tokens": 2000})))
