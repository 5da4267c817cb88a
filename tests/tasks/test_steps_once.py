"""A step that is done is not run again, one that fails leaves nothing, and checkpoints that are damaged are forgotten."""

from __future__ import annotations

import json
import time
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from plain_step import plain_step

from reseed.records import Artifact, ReseedError
from reseed.store import lease as leases
from reseed.store.artifacts import ArtifactStore
from reseed.store.lease import Lease, Place
from tasks import train as training
from tasks.progress import Progress, artifact_key, progress
from tasks.publish import move_latest
from tasks.run_once import run_once
from tasks.train import fit, mend_list, scratch_name, tidy

STEP = plain_step("generate", 1, "rows", "tiny", {"rows": 3})


def write(folder: Path) -> dict[str, Any]:
    (folder / "rows.jsonl").write_text("{}\n")
    return {"rows": 1}


def test_a_step_is_run_once(store: ArtifactStore) -> None:
    runs = []

    def work(folder: Path) -> dict[str, Any]:
        runs.append(folder)
        return write(folder)

    assert run_once(store, STEP, work) == run_once(store, STEP, work) == STEP.artifact
    assert len(runs) == 1
    assert not runs[0].exists(), "the folder it wrote into is gone"
    assert store.manifest(STEP.artifact).metrics == {"rows": 1}


def test_a_step_that_fails_leaves_nothing(store: ArtifactStore) -> None:
    def work(folder: Path) -> dict[str, Any]:
        write(folder)
        raise ReseedError("too late")

    with pytest.raises(ReseedError, match="too late"):
        run_once(store, STEP, work)
    assert store.find(STEP.artifact) is None
    assert run_once(store, STEP, write) == STEP.artifact


ONE = '{"checkpoint_results": [{"checkpoint_dir_name": "checkpoint_1"}, {"checkpoint_dir_name": "gone"}]'


@pytest.mark.parametrize(
    "text",
    [
        "", '{"checkpoint_results": [', "{}", ONE + "}", ONE + ', "checkpoint_report_indices": [1]}',
        '{"checkpoint_results": [], "checkpoint_report_indices": [], "latest": null}',
    ],
)  # fmt: skip
def test_a_damaged_list_of_checkpoints_is_forgotten(store: ArtifactStore, text: str) -> None:
    place = store.scratch(scratch_name(STEP))
    mend_list(store, STEP)  # nothing there yet
    store.fs.makedirs(f"{place}/checkpoint_1", exist_ok=True)
    store.fs.pipe_file(f"{place}/checkpoint_manager_snapshot.json", text.encode())
    store.fs.pipe_file(f"{place}/checkpoint_1/state.json", b"{}")
    mend_list(store, STEP)
    store.fs.invalidate_cache()
    assert store.fs.exists(f"{place}/checkpoint_1/state.json") == ("latest" in text)


def test_a_store_that_fails_while_the_list_is_mended_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ArtifactStore(str(tmp_path))
    text = ONE + ', "checkpoint_report_indices": [1, 2]}'
    assert store.objects.create(f"scratch/{scratch_name(STEP)}/checkpoint_manager_snapshot.json", text.encode())

    def away(path: str) -> bool:
        raise OSError("no route to host")

    monkeypatch.setattr(store.fs, "exists", away)
    with pytest.raises(ReseedError, match=rf"store {tmp_path}: OSError: no route to host"):
        mend_list(store, STEP)


def test_what_a_holder_elsewhere_left_goes_once_it_is_silent(
    store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its driver died after the adapter was stored, on a machine whose processes cannot be looked at."""
    with monkeypatch.context() as patch:
        place = Place(kernel="another machine's", process=1, started="1")
        patch.setattr(leases, "this_place", lambda: place)
        assert Lease(store, "member").take()
    state = f"scratch/{scratch_name(STEP)}/checkpoint_1/state.json"
    assert store.objects.create(state, b"{}")
    time.sleep(1.6)  # S3 counts whole seconds
    tidy(store, STEP, Lease(store, "member"))
    assert store.objects.read(state) == b"{}", "it may be alive"
    tidy(store, STEP, Lease(store, "member", seconds=0.5, beat=0.05))
    assert store.objects.read(state) is None
    assert not Lease(store, "member").is_there()


def test_a_checkpoint_that_is_gone_leaves_the_list(store: ArtifactStore) -> None:
    """Ray Train starts from no list that names one."""
    place = store.scratch(scratch_name(STEP))
    snapshot = f"{place}/checkpoint_manager_snapshot.json"
    older, newer = ({"checkpoint_dir_name": f"checkpoint_{n}", "metrics": {}} for n in (1, 2))
    listed = {"checkpoint_results": [older, newer], "checkpoint_report_indices": [4, 5], "current_report_index": 6}
    store.fs.makedirs(f"{place}/checkpoint_1", exist_ok=True)
    store.fs.pipe_file(f"{place}/checkpoint_1/state.json", b"{}")
    store.fs.pipe_file(snapshot, json.dumps(listed | {"latest_checkpoint_result": newer}).encode())
    mend_list(store, STEP)
    kept = {"checkpoint_results": [older], "checkpoint_report_indices": [4], "latest_checkpoint_result": older}
    assert json.loads(store.fs.cat_file(snapshot)) == listed | kept


@pytest.mark.parametrize("made", [True, False])
def test_after_a_failure_the_store_is_asked(
    store: ArtifactStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, made: bool
) -> None:
    """Ray Train fails like this where another flow has stored the adapter and removed the checkpoints."""

    class Trainer:
        def fit(self) -> None:
            if made:
                store.write(STEP, tmp_path)
            raise RuntimeError("Unable to set up cluster storage\nCheck that all nodes have read/write access")

    monkeypatch.setattr(training, "trainer_for", lambda *_: Trainer())
    monkeypatch.setattr(training, "log_news", lambda _: nullcontext())
    assignment: Any = SimpleNamespace(step=STEP, run_name="tiny seed 0")
    profile: Any = None
    if made:
        fit(store, assignment, profile)
        return
    with pytest.raises(
        ReseedError, match="training of tiny seed 0 failed: Check that all nodes have read/write access;"
    ):
        fit(store, assignment, profile)


def test_latest_never_moves_back(store: ArtifactStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write(tmp_path)

    def publish(day: str) -> Artifact:
        artifact = store.write(plain_step("publish", 1, "dataset", "nights", {"date": day}), tmp_path)
        store.move_ref("dataset", "nights", day, artifact, expected=None)
        return artifact

    def latest() -> Artifact | None:
        ref = store.ref("dataset", "nights", "latest")
        return ref.artifact if ref is not None else None

    first = publish("2026-11-20")
    assert move_latest(store, "nights") == "2026-11-20"
    publish("2026-11-19")
    store.point("dataset", "nights", "stable", publish("2026-11-18"))  # a person's own name for a version is no day
    assert move_latest(store, "nights") == "2026-11-20"
    assert latest() == first

    listed = store.refs
    newest: list[Artifact] = []

    def refs_then_another_flow(kind: str, name: str) -> dict[str, Artifact]:
        found = listed(kind, name)
        if not newest:  # after this flow has listed the days, another one publishes a newer day and moves `latest`
            newest.append(publish("2026-11-30"))
            store.point(kind, name, "latest", newest[0])
        return found

    publish("2026-11-21")
    monkeypatch.setattr(store, "refs", refs_then_another_flow)
    assert move_latest(store, "nights") == "2026-11-30"
    assert latest() == newest[0]


def test_progress_counts_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="reseed")
    with progress("generate: rows", 10) as shown:
        assert isinstance(shown, Progress)
        assert shown.artifact is None, "no artifact outside a task run"
        shown.advance(4)
        shown.advance(6, "12 tokens/s")
    assert caplog.messages == ["generate: rows: 4 of 10", "generate: rows: 10 of 10, 12 tokens/s"]


def test_progress_says_that_it_goes_on(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    caplog.set_level("INFO", logger="reseed")
    monkeypatch.setattr("tasks.progress.QUIET", 0.1)
    with progress("generate: rows", 10):
        time.sleep(0.35)
    assert 1 <= len(caplog.messages) <= 4
    assert caplog.messages[0] == "generate: rows: 0 of 10 after 0 s"


def test_names_become_keys_that_prefect_takes() -> None:
    assert artifact_key("iteration-10.b_2 Scores") == "iteration-10-b-2-scores"
    assert json.dumps(artifact_key("Ünicode-scores")) == '"nicode-scores"'
