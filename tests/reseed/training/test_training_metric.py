"""The best step chosen by the problem's own metric, of greedy answers to a few validation rows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from tiny import save_embedder
from tiny_rows import PROBLEM, SHORT, PowerError, Recorder, job, rows

from reseed.generation.engines.transformers_engine import TransformersEngine
from reseed.line import judge_of, plan_line
from reseed.models.names import ModelSpec
from reseed.problems import ProblemModule
from reseed.recipe.profile import load_profile
from reseed.recipe.reading import load_recipe
from reseed.records import Member, ReseedError, Row, Sampling
from reseed.store.artifacts import ArtifactStore
from reseed.training.early import is_better
from reseed.training.job import Judge, Silent, TrainJob, TrainSummary
from reseed.training.loop import train

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from reseed.problems import Embed

BY_METRIC = SHORT.model_copy(update={"choose_by": "metric", "metric_rows": 3, "epochs": 2, "evaluate_every": 1})
ANSWER = 12  # new tokens


def length(answers: Sequence[str], rows: Sequence[Row], embed: Embed) -> NDArray[np.float64]:
    """A metric for which the loss cannot stand in."""
    assert embed(["text"]).shape == (1, 32), "the judge's embedder"
    return np.array([float(len(answer)) for answer in answers])


@pytest.fixture(scope="module")
def embedder(tmp_path_factory: pytest.TempPathFactory) -> ModelSpec:
    return ModelSpec(name=str(save_embedder(tmp_path_factory.mktemp("judge") / "embedder")), dtype="float32")


def judged(model: Path, embedder: ModelSpec, higher: bool) -> TrainJob:
    return replace(job(model, settings=BY_METRIC), judge=Judge(embedder, ANSWER, higher))


def run(
    place: Path, what: TrainJob, higher: bool, resume: Path | None = None, stop_after: int | None = None
) -> TrainSummary:
    watcher, problem = Recorder(place / "seen", stop_after), replace(PROBLEM, scores=length, higher_is_better=higher)
    summary = train(what, problem, rows(12), rows(17)[12:], place / "work", watcher, resume)
    assert summary is not None
    return summary


def test_a_metric_that_is_no_number_ends_the_run(tiny_model: Path, embedder: ModelSpec, tmp_path: Path) -> None:
    what = judged(tiny_model, embedder, higher=False)
    undefined = replace(PROBLEM, scores=lambda answers, rows, embed: np.full(len(answers), np.nan))
    with pytest.raises(ReseedError, match=r"the problem's metric is nan at step 1; its `scores` must be numbers"):
        train(what, undefined, rows(12), rows(17)[12:], tmp_path / "work", Silent())


@pytest.mark.parametrize("higher", [True, False])
def test_the_best_step_is_that_of_the_best_metric(
    tiny_model: Path, embedder: ModelSpec, tmp_path: Path, higher: bool
) -> None:
    what = judged(tiny_model, embedder, higher)
    summary = run(tmp_path, what, higher)
    points = [point for point in summary.curve if point.validation is not None]
    metrics = [point.metric for point in points if point.metric is not None]
    assert len(metrics) == len(points) == 6
    assert len(set(metrics)) > 1, "or nothing is chosen"
    assert summary.best_metric == (max if higher else min)(metrics)
    best = [point for point in points if point.metric == summary.best_metric]
    assert summary.best_loss == min(point.validation or 0 for point in best), "among equals the loss chooses"
    assert summary.best_step in [point.step for point in best]


def test_the_metric_is_that_of_the_answers_of_the_kept_adapter(
    tiny_model: Path, embedder: ModelSpec, tmp_path: Path
) -> None:
    """Prediction, which loads the adapter anew and in other batches, writes the same."""
    what = judged(tiny_model, embedder, True)
    summary = run(tmp_path, what, True)
    engine, sampling = TransformersEngine(what.model, 1), Sampling(ANSWER)
    asked = sorted(rows(17)[12:], key=lambda row: row["id"])[: BY_METRIC.metric_rows]
    prompts = [engine.question(PROBLEM, row, sampling, BY_METRIC.max_tokens) for row in asked]
    written = engine.generate(prompts, sampling, 0, tmp_path / "work" / "best" / "adapter")
    assert summary.best_metric == pytest.approx(np.mean([len(PROBLEM.parse(answer.text)) for answer in written]))


def test_the_metric_is_that_of_the_recipe_though_a_variant_is_taught_by_another_problem(
    tiny_model: Path, embedder: ModelSpec, tmp_path: Path
) -> None:
    recipes = ProblemModule(
        "recipes", 'columns = ("text",)\nmetric = "m"\nhigher_is_better = True\ndef prompt(row): ...\n'
        "def completion(row): ...\ndef scores(answers, rows, embed): return [0.25 for _ in answers]\n",
    )  # fmt: skip
    what = judged(tiny_model, embedder, True)
    assert what.judge is not None
    assert run(tmp_path, replace(what, judge=replace(what.judge, problem=recipes)), True).best_metric == 0.25


def test_asking_changes_nothing_of_the_training(tiny_model: Path, embedder: ModelSpec, tmp_path: Path) -> None:
    dropping = BY_METRIC.model_copy(update={"dropout": 0.1})
    asked = run(tmp_path / "asked", replace(judged(tiny_model, embedder, True), settings=dropping), True)
    plain = run(tmp_path / "plain", replace(job(tiny_model, settings=dropping)), True)
    assert [replace(point, metric=None) for point in asked.curve] == list(plain.curve)
    assert plain.best_metric is None


def test_a_stopped_run_remembers_the_best_metric(tiny_model: Path, embedder: ModelSpec, tmp_path: Path) -> None:
    what = judged(tiny_model, embedder, True)
    undisturbed = run(tmp_path / "undisturbed", what, True)
    with pytest.raises(PowerError):
        run(tmp_path / "stopped", what, True, stop_after=3)
    checkpoint = tmp_path / "stopped" / "seen" / "step-3"
    assert json.loads((checkpoint / "best" / "best.json").read_text())["metric"] is not None
    assert run(tmp_path / "resumed", what, True, resume=checkpoint) == undisturbed


def test_better_is_by_the_metric_and_then_by_the_loss() -> None:
    inf = float("inf")
    assert is_better(2.0, None, inf, None, True)
    assert not is_better(2.0, None, 1.0, None, True)
    assert is_better(2.0, 0.5, 1.0, 0.4, True)
    assert not is_better(2.0, 0.5, 1.0, 0.4, False)
    assert is_better(0.9, 0.4, 1.0, 0.4, True)
    assert not is_better(0.9, 0.3, 1.0, 0.4, True)


def test_the_judge_is_part_of_the_key_only_where_it_chooses() -> None:
    profile = load_profile("laptop")
    member = Member("default", 0)

    def key(recipe: tuple[str, ...], place: tuple[str, ...] = ()) -> str:
        loaded, where = load_recipe("rewrites", recipe), load_profile("laptop", place)
        return plan_line(loaded, where, ArtifactStore("unused")).adapter(member).artifact.key

    by_metric = ("training.choose_by=metric",)
    other_embedder = ("roles.embedder.name=sentence-transformers/sentence-t5-base",)
    assert key(()) == key((), other_embedder)
    assert key(by_metric) != key(by_metric, other_embedder)
    assert key(by_metric) != key((*by_metric, "prediction.max_new_tokens=7"))
    shared = load_recipe("rewrites").problem
    assert judge_of(load_recipe("rewrites").variant("default"), profile, shared) is None
    judge = judge_of(load_recipe("rewrites", by_metric).variant("default"), profile, shared)
    assert judge == Judge(profile.roles.embedder, 20, True)
