from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from plain_step import plain_step
from tiny import save_embedder

from reseed.evaluation.experiment import (
    KIND,
    Asked,
    evaluate,
    latest,
    latest_results,
    load_results,
    make_latest,
    save_results,
)
from reseed.files import write_jsonl
from reseed.models.names import ModelSpec
from reseed.problems import ProblemModule, load_problem
from reseed.records import Artifact, LossPoint, Member, ReseedError, Row
from reseed.results import (
    ComparisonResult,
    ConstantResult,
    DatasetStats,
    Design,
    Influence,
    MemberResult,
    NoiseParts,
    Results,
    VariantResult,
)
from reseed.steps.score import score_inputs
from reseed.store.artifacts import ArtifactStore
from reseed.store.step import Step

PROBLEM = load_problem("prompt-recovery")
CURVE = (LossPoint(0, None, 2.5), LossPoint(5, 2.0, None), LossPoint(10, 1.5, 1.25))
RESULTS = Results(
    experiment="small",
    question="Does 猫 survive?",
    problem="prompt-recovery",
    metric="scs",
    higher_is_better=True,
    rows=12,
    untrained=1 / 3,
    variants=(
        VariantResult(
            "a", (MemberResult(0, 0.1, 10, "adapter/small-a/abc", CURVE), MemberResult(7, 0.3, 5, "adapter/small-a/def")),
            0.2, math.sqrt(0.02), 0.4,
        ),
        VariantResult("b", (MemberResult(0, 0.5, 10, "adapter/small-b/abc"),), 0.5, None, 0.5),
    ),
    constants=(ConstantResult("Improve it.", 0.25),),
    dataset=DatasetStats(60, 20, 0.3333, 41.5, {"empty": 3}),
    train_rows=40,
    baseline="a",
    delta=0.02,
    group_by="rewrite_prompt",
    comparisons=(
        ComparisonResult(
            "a", "untrained", "ensemble", 0.06, 0.05, 0.07, 0.95, 0.01, 0.02, "better", (2, 0), 4, 3.5,
            NoiseParts(0.1, 0.2, 0.3), 0.06, 0.9, Design(3, 8, 0.85), (Influence("x", 3, 0.05),),
        ),
        ComparisonResult(
            "b", "untrained", "member", 0.2, None, None, 0.95, None, None, None, (1, 0), 1, 1.0, NoiseParts(0.0, 0.0, 0.0)
        ),
    ),
)  # fmt: skip


@pytest.fixture
def local(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(str(tmp_path / "store"))


def put(
    store: ArtifactStore,
    folder: Path,
    step: Step,
    files: Mapping[str, Sequence[Mapping[str, Any]]],
    metrics: dict[str, Any] | None = None,
) -> Artifact:
    """A finished artifact of JSON Lines files."""
    place = folder / step.artifact.key
    place.mkdir(parents=True)
    for name, rows in files.items():
        write_jsonl(place / name, rows)
    return store.write(step, place, metrics)


def put_results(store: ArtifactStore, folder: Path, results: Results) -> Artifact:
    step = plain_step("score", 1, KIND, results.experiment, {"question": results.question})
    place = folder / step.artifact.key
    place.mkdir(parents=True)
    save_results(results, place / "results.json")
    return store.write(step, place)


@pytest.mark.parametrize(
    "results", [RESULTS, replace(RESULTS, dataset=None, comparisons=(), constants=(), variants=RESULTS.variants[1:])]
)
def test_results_come_back_whole(store: ArtifactStore, tmp_path: Path, results: Results) -> None:
    assert load_results(store, put_results(store, tmp_path / "work", results)) == results


def test_loss_that_diverged_comes_back_as_a_gap(local: ArtifactStore, tmp_path: Path) -> None:
    curve = (LossPoint(0, None, 2.5), LossPoint(5, math.nan, math.inf))
    first = replace(RESULTS.variants[1], members=(replace(RESULTS.variants[1].members[0], curve=curve),))
    back = load_results(local, put_results(local, tmp_path / "work", replace(RESULTS, variants=(first,))))
    assert back.variants[0].members[0].curve == (LossPoint(0, None, 2.5), LossPoint(5, None, None))


def test_json_has_the_promised_keys() -> None:
    record = json.loads(json.dumps(RESULTS.to_json()))
    promised = {"experiment", "problem", "metric", "higher_is_better", "rows", "untrained", "variants"}
    assert promised <= set(record)
    assert record["untrained"] == {"score": 1 / 3}
    assert [set(variant) for variant in record["variants"]] == [
        {"name", "members", "mean", "std", "ensemble", "seed_noise"}
    ] * 2
    a, b = record["variants"]
    artifact = "adapter/small-a/abc"
    assert a["members"][0] == {
        "seed": 0,
        "score": 0.1,
        "best_step": 10,
        "artifact": artifact,
        "cut_off": None,
        "order": None,
    }
    assert (a["name"], a["mean"], a["std"], a["ensemble"]) == ("a", 0.2, math.sqrt(0.02), {"score": 0.4})
    assert b["std"] is None
    assert record["constants"] == [{"text": "Improve it.", "score": 0.25, "cross_fitted": False}]
    assert record["gain"] == {"mean": 0.06, "half_width": pytest.approx(0.01)}
    first = record["comparisons"][0]
    assert {key: first[key] for key in ("a", "b", "estimand", "verdict", "seeds", "groups")} == {
        "a": "a", "b": "untrained", "estimand": "ensemble", "verdict": "better", "seeds": 2, "groups": 4,
    }  # fmt: skip
    assert first["noise"] == {"seeds": 0.1, "groups": 0.2, "both": 0.3}
    assert record["comparisons"][1]["low"] is record["comparisons"][1]["verdict"] is None
    assert record["dataset"] == asdict(DatasetStats(60, 20, 0.3333, 41.5, {"empty": 3}))


def test_latest_result_is_the_one_that_was_pointed_at_last(local: ArtifactStore, tmp_path: Path) -> None:
    for question in ("First?", "Second?"):
        made = put_results(local, tmp_path / "work", replace(RESULTS, question=question))
        local.point(KIND, "small", "latest", made)
    assert latest_results(local, "small").question == "Second?"


def test_latest_is_not_moved_back_by_a_run_that_passes_through_an_early_look(
    local: ArtifactStore, tmp_path: Path
) -> None:
    made: list[Artifact] = []
    for look in (3, 4, 5):
        inputs = {"results before": made[-1]} if made else {}
        made.append(
            put(local, tmp_path, plain_step("score", 1, KIND, "small", {"look": look}, inputs), {"rows.jsonl": []})
        )

    def latest_after(artifact: Artifact, always: bool = False) -> Artifact:
        make_latest(local, artifact, always)
        return latest(local, "small")

    first, second, third = made
    assert latest_after(first) == first
    assert latest_after(third) == third
    assert latest_after(first) == latest_after(second) == third
    local.objects.remove(second.path)
    assert latest_after(first) == first, "nothing says any more that it led to the third"
    local.point(KIND, "small", "latest", replace(third, key="0" * 32))  # a result that was removed
    assert latest_after(third) == third
    assert latest_after(first, always=True) == first


def test_missing_result_is_reported_with_those_that_exist(local: ArtifactStore, tmp_path: Path) -> None:
    with pytest.raises(ReseedError, match=r"results 'other': .*it has no results yet\. `reseed run other` makes them"):
        latest_results(local, "other")
    put_results(local, tmp_path / "work", RESULTS)
    with pytest.raises(ReseedError, match="it has small"):
        latest_results(local, "other")


def rows(texts: Sequence[str], first: int = 0) -> list[Row]:
    return [PROBLEM.row(f"text {first + n}", text, f"other {first + n}") for n, text in enumerate(texts)]


TEST = rows(["Make it rhyme.", "Sing it.", "Cut it."])
TRAIN = rows(["Cut it.", "Say it twice."], first=100)


def answers(*texts: str) -> dict[str, list[dict[str, str]]]:
    given = [{"id": row["id"], "text": text, "answer": text} for row, text in zip(TEST, texts, strict=True)]
    return {"predictions.jsonl": given[::-1]}


def evidence(store: ArtifactStore, folder: Path, embedder: str = "nowhere") -> tuple[Asked, dict[str, Artifact]]:
    """The artifacts of two variants of one seed each, over the same held-out rows."""
    split: dict[str, list[Row]] = {"train.jsonl": TRAIN, "validation.jsonl": [], "test.jsonl": TEST}
    stats = {"n": 5, "n_prompts": 4, "ratio": 0.8, "median_tokens": 9.0, "dropped": {"empty": 1}, "other": "left out"}
    curve: list[dict[str, Any]] = [
        {"step": 0, "train": None, "validation": 2.0},
        {"step": 4, "train": 1.0, "validation": 1.5},
    ]
    given = {"a": answers("Make it rhyme.", "Sing it.", "Cut it."), "b": answers("", "", "Cut it.")}
    curated = put(store, folder, plain_step("curate", 1, "curated", "small", {}), {"rows.jsonl": []}, stats)
    members = (Member("a", 0), Member("b", 0))
    partitions, adapters, predictions = {}, {}, dict[Member | None, Artifact]()
    for name, member in zip("ab", members, strict=True):
        spec = {"of": name, "test": {"group_by": "rewrite_prompt"}}
        partitioning = plain_step("partition", 1, "partition", "small", spec, {"curated": curated})
        partitions[name] = put(store, folder, partitioning, split)
        trained = plain_step("train", 1, "adapter", f"small-{name}", spec)
        adapters[member] = put(store, folder, trained, {"curve.jsonl": curve}, {"best_step": 4})
        predicted = plain_step("predict", 1, "predictions", "small", spec)
        metrics = {"rows": 3, "ended_by_themselves": 2}
        predictions[member] = put(store, folder, predicted, given[name], metrics)
    predictions[None] = put(store, folder, plain_step("predict", 1, "predictions", "small", {}), answers("", "", ""))
    ensembles = {name: predictions[member] for name, member in zip("ab", members, strict=True)}  # of one member each
    asked = Asked(
        question="Is it?",
        problem=ProblemModule("prompt-recovery"),
        embedder=ModelSpec(name=embedder, dtype="float32"),
        constants=("Improve it.",),
        members=members,
        baseline="a",
        delta=None,
    )
    return asked, score_inputs(partitions, adapters, predictions, ensembles)


@pytest.mark.slow
def test_result_is_made_out_of_its_artifacts(local: ArtifactStore, tmp_path: Path) -> None:
    embedder = save_embedder(tmp_path / "embedder")
    found, _ = evaluate(local, *evidence(local, tmp_path / "work", str(embedder)), "small")
    assert (found.experiment, found.question, found.problem, found.metric) == (
        "small",
        "Is it?",
        "prompt-recovery",
        "scs",
    )
    assert (found.rows, found.train_rows) == (3, 2)
    assert found.dataset == DatasetStats(5, 4, 0.8, 9.0, {"empty": 1})
    a, b = found.variants
    assert (a.name, b.name) == ("a", "b")
    assert a.mean == a.ensemble == pytest.approx(1, abs=1e-6)
    assert a.std is None
    assert found.untrained < b.mean < 1
    assert [(one.a, one.b) for one in found.comparisons][:2] == [("b", "a"), ("a", "untrained")]
    assert {(one.estimand, one.groups) for one in found.comparisons} == {("member", 3)}
    assert found.gain is not None
    assert found.gain.mean == pytest.approx(a.ensemble - found.untrained)
    assert a.members[0].best_step == 4
    assert a.members[0].cut_off == 1
    assert a.members[0].artifact.startswith("adapter/small-a/")
    assert a.members[0].curve == (LossPoint(0, None, 2.0), LossPoint(4, 1.0, 1.5))
    assert found.constants[0].text == "Improve it."
    assert found.constants[1].text in {row["rewrite_prompt"] for row in TRAIN}
    assert load_results(local, put_results(local, tmp_path / "work", found)) == found


def test_variants_on_other_held_out_rows_cannot_be_compared(local: ArtifactStore, tmp_path: Path) -> None:
    asked, given = evidence(local, tmp_path / "work")
    other = {"train.jsonl": TRAIN, "validation.jsonl": [], "test.jsonl": TEST[:2]}
    strange = put(local, tmp_path / "work", plain_step("partition", 1, "partition", "small", {"of": "other"}), other)
    with pytest.raises(ReseedError, match="variant 'b' is scored on other rows than 'a', so they cannot be compared"):
        evaluate(local, asked, {**given, "partition b": strange}, "small")


def test_row_answered_twice_is_reported(local: ArtifactStore, tmp_path: Path) -> None:
    asked, given = evidence(local, tmp_path / "work")
    twice = {"predictions.jsonl": answers("x", "y", "z")["predictions.jsonl"] * 2}
    double = put(local, tmp_path / "work", plain_step("predict", 1, "predictions", "small", {"of": "twice"}), twice)
    with pytest.raises(ReseedError, match=r"predictions/small/\w+: rows answered twice: 3;"):
        evaluate(local, asked, {**given, "predictions b seed 0": double}, "small")
