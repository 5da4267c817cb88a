"""A result is tracked once, by whichever flow comes to it."""

from __future__ import annotations

from pathlib import Path

import pytest
from offline_runs import read_back
from plain_step import plain_step

from reseed.results import MemberResult, Results, VariantResult
from reseed.store.artifacts import ArtifactStore
from reseed.store.step import Step
from tasks.report import track

RESULTS = Results(
    experiment="tiny", question="Once?", problem="prompt-recovery", metric="scs", higher_is_better=True, rows=4,
    untrained=0.25, variants=(VariantResult("a", (MemberResult(0, 0.5, 9, "adapter/tiny-a/abc"),), 0.5, None, 0.5),),
)  # fmt: skip


@pytest.fixture
def scored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[ArtifactStore, Step]:
    """A store with a result that nothing has tracked, and Weights & Biases offline."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    store, step = (
        ArtifactStore(str(tmp_path / "store")),
        plain_step("score", 4, "results", "tiny", {"question": "Once?"}),
    )
    (tmp_path / "made").mkdir()
    store.write(step, tmp_path / "made")
    return store, step


def test_a_result_is_tracked_once(scored: tuple[ArtifactStore, Step], tmp_path: Path) -> None:
    store, step = scored
    for _ in range(2):
        track(store, step, RESULTS)
    runs = read_back(tmp_path)
    assert list(runs) == [step.artifact.key[:16]]
    assert len(list((tmp_path / "wandb").glob("offline-run-*"))) == 1
    other = plain_step("score", 4, "results", "tiny", {"question": "Another?"})
    store.write(other, tmp_path / "made")
    track(store, other, RESULTS)
    assert len(list((tmp_path / "wandb").glob("offline-run-*"))) == 2


def test_what_could_not_be_tracked_is_told_and_left_to_the_next_flow(
    scored: tuple[ArtifactStore, Step],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    store, step = scored
    (tmp_path / "file").write_text("")
    with monkeypatch.context() as patch:
        patch.setenv("WANDB_DIR", str(tmp_path / "file" / "below"))
        track(store, step, RESULTS)
    assert "Weights & Biases: the experiment's own run was not written: " in caplog.text
    track(store, step, RESULTS)
    assert list(read_back(tmp_path)) == [step.artifact.key[:16]]


def test_what_is_switched_off_is_not_taken_for_written(
    scored: tuple[ArtifactStore, Step], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, step = scored
    with monkeypatch.context() as patch:
        patch.setenv("WANDB_MODE", "disabled")
        track(store, step, RESULTS)
    assert store.refs("results", "tiny") == {}
    with monkeypatch.context() as patch:
        patch.setenv("WANDB_MODE", "sometimes")
        track(store, step, RESULTS)
    track(store, step, RESULTS)
    assert list(read_back(tmp_path)) == [step.artifact.key[:16]]
