"""Answers out of the store: an ensemble's or a member's, as a table and with where they came from."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from plain_step import plain_step

from reseed.export import export_artifact, find_exported, merge_adapter
from reseed.files import write_jsonl
from reseed.problems import ProblemModule
from reseed.records import Artifact, ReseedError
from reseed.steps import make_step
from reseed.steps.predict import Blend
from reseed.store.artifacts import ArtifactStore
from reseed.store.step import Step

STRANGE = 'Rewrite, "as a\rpirate",\nin 猫 | words'


@pytest.fixture
def local(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(str(tmp_path / "store"))


def answered(store: ArtifactStore, folder: Path, seed: int | None, answers: dict[str, str]) -> Artifact:
    """The answers of a member, or without a seed of the untrained student."""
    rows = [{"id": row_id, "answer": answer, "text": answer} for row_id, answer in answers.items()]
    (folder / f"made {seed}").mkdir()
    write_jsonl(folder / f"made {seed}" / "predictions.jsonl", rows)
    inputs = {"partition": Artifact("partition", "tiny", "abc")}
    if seed is not None:
        trained = plain_step("train", 1, "adapter", "tiny-default", {}, seed=seed)
        inputs["adapter"] = store.write(trained, folder / f"made {seed}", {"best_step": 10 + seed})
    spec = {"problem": "prompt-recovery", "model": {"name": "some/model"}}
    return store.write(plain_step("predict", 1, "predictions", "tiny", spec, inputs), folder / f"made {seed}")


def blended(store: ArtifactStore, members: dict[str, Artifact]) -> Artifact:
    return make_step(store, Step(Blend(ProblemModule("prompt-recovery")), "tiny-default", members))


def table_in(folder: Path) -> list[list[str]]:
    with (folder / "predictions.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def test_an_ensemble_is_exported_with_the_members_it_was_blended_from(local: ArtifactStore, tmp_path: Path) -> None:
    one = answered(local, tmp_path, 0, {"a": STRANGE, "b": "sea"})
    two = answered(local, tmp_path, 1, {"a": STRANGE, "b": "sea"})
    ensemble = blended(local, {"predictions default seed 0": one, "predictions default seed 1": two})
    assert export_artifact(local, ensemble, tmp_path / "out") == ["README.md", "predictions.csv"]
    assert table_in(tmp_path / "out") == [["id", "answer"], ["a", STRANGE], ["b", "sea"]]
    page = (tmp_path / "out" / "README.md").read_text()
    assert page.startswith(f"# {ensemble.path}\n")
    for seed, answers in enumerate((one, two)):
        adapter = local.manifest(answers).inputs["adapter"]
        assert f"| default seed {seed} | {answers.path} | {adapter} | {10 + seed} |" in page
    for told in ("2 held-out rows of the problem prompt-recovery", "partition/tiny/abc", "Model: some/model."):
        assert told in page
    assert str(tmp_path) not in page, "no path of this machine"


def test_a_member_and_the_untrained_student_are_exported_too(local: ArtifactStore, tmp_path: Path) -> None:
    for seed, name in ((2, "tiny-default seed 2"), (None, "untrained")):
        answers = answered(local, tmp_path, seed, {"a": f"sea {seed}"})
        export_artifact(local, answers, tmp_path / name)
        assert table_in(tmp_path / name)[1:] == [["a", f"sea {seed}"]]
        assert f"| {name} | {answers.path} | " in (tmp_path / name / "README.md").read_text()


def test_answers_are_found_as_adapters_are(local: ArtifactStore, tmp_path: Path) -> None:
    answers = answered(local, tmp_path, 0, {"a": "sea"})
    ensemble = blended(local, {"predictions default seed 0": answers})
    for artifact in (answers, ensemble):
        assert find_exported(local, str(artifact)) == find_exported(local, artifact.path) == artifact
    for asked, said in (
        ("ensemble/tiny-default/zzz", f"its keys are {ensemble.key[:12]}"),
        ("ensemble/tiny-defualt/abc", "no such name .did you mean 'tiny-default'"),
        ("predictions/tinny/abc", "no such name .did you mean 'tiny'"),
        ("ensembel/tiny-default/abc", "or predictions/NAME/KEY .did you mean 'ensemble'.*reseed plan RECIPE"),
        ("ensemble/tiny-default", "wanted adapter/NAME/KEY or ensemble/NAME/KEY or predictions/NAME/KEY, as"),
    ):
        with pytest.raises(ReseedError, match=said):
            find_exported(local, asked)


def test_answers_are_neither_merged_nor_written_over_something(local: ArtifactStore, tmp_path: Path) -> None:
    answers = answered(local, tmp_path, 0, {"a": "sea"})
    with pytest.raises(ReseedError, match="leave out --merge"):
        merge_adapter(local, answers, tmp_path / "merged")
    (tmp_path / "there").mkdir()
    with pytest.raises(ReseedError, match="already exists"):
        export_artifact(local, answers, tmp_path / "there")
