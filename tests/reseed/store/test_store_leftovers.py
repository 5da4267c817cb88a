"""What killed processes leave behind goes, and what belongs to living ones stays: real processes, killed."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from plain_step import plain_step

from reseed.store import leftovers
from reseed.store.artifacts import ArtifactStore
from reseed.store.leftovers import remove_temporary_folders, work_folder

ROOT = Path(__file__).parents[3]
HOLDER = """
import sys, time
from pathlib import Path
from reseed.store.leftovers import held
folder = Path(sys.argv[1])
folder.mkdir(parents=True)
with held(folder):
    (folder / "half").write_text("x")
    print("held", flush=True)
    time.sleep(600)
"""
STEP = plain_step("generate", 1, "shard", "leftovers", {"n": 1})


@contextmanager
def holder(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that holds `folder`."""
    command = [sys.executable, "-c", HOLDER, str(folder)]
    process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.wait()


def test_a_killed_process_s_temporary_folder_is_taken_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder, foreign = tmp_path / f"reseed-train-{'a' * 12}-{'b' * 32}", tmp_path / "reseed-baseline"
    foreign.mkdir()
    an_hour_ago = time.time() - 3600
    with holder(folder) as process, work_folder() as own:
        for path in (folder, foreign, own):
            os.utime(path, (an_hour_ago, an_hour_ago))
        remove_temporary_folders()
        assert {folder, foreign, own} <= set(tmp_path.iterdir()), "their owners live"
        process.kill()
        process.wait()
        os.utime(folder)
        remove_temporary_folders()
        assert folder.exists(), "it may be about to be held"
        os.utime(folder, (an_hour_ago, an_hour_ago))
        remove_temporary_folders()
        assert set(tmp_path.iterdir()) == {foreign, own}
    assert set(tmp_path.iterdir()) == {foreign}


def written(store: ArtifactStore, folder: Path) -> str:
    """The attempt of an artifact that is written now."""
    folder.mkdir()
    (folder / "rows.jsonl").write_text("{}\n")
    return store.manifest(store.write(STEP, folder)).attempt


def test_a_killed_writer_s_attempt_is_taken_away_by_the_next(tmp_path: Path) -> None:
    store = ArtifactStore(str(tmp_path / "store"))
    place = tmp_path / "store" / STEP.artifact.path
    with holder(place / ("a" * 12)) as killed, holder(place / ("b" * 12)):
        killed.kill()
        killed.wait()
        attempt = written(store, tmp_path / "files")
        assert {path.name for path in place.iterdir()} == {"manifest.json", attempt, "b" * 12}


def test_on_s3_an_attempt_of_a_day_ago_is_taken_away(
    s3_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody knows there whether its writer lives."""
    store = ArtifactStore(f"{s3_url}/{tmp_path.name}")
    place = f"{store.root}/{STEP.artifact.path}"
    store.fs.pipe_file(f"{place}/{'a' * 12}/rows.jsonl", b"half")
    attempt = written(store, tmp_path / "files")
    left = {"manifest.json", f"{'a' * 12}/rows.jsonl", f"{attempt}/rows.jsonl"}
    assert {path.removeprefix(f"{place}/") for path in store.fs.find(place)} == left
    monkeypatch.setattr(leftovers, "REMOTE", timedelta(0))
    leftovers.take_away_attempts(store.objects, store.manifest(STEP.artifact))
    assert {path.removeprefix(f"{place}/") for path in store.fs.find(place)} == left - {f"{'a' * 12}/rows.jsonl"}
