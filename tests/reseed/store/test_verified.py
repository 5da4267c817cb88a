"""Files that changed after they were written are noticed where they are read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from stored_files import FILES, WEIGHTS, build, change, folder_with, step

import reseed.store.verified
from reseed.files import file_digest
from reseed.models.cache import cached
from reseed.records import ReseedError
from reseed.store.artifacts import ArtifactStore
from reseed.store.verified import CHECKSUMS, check_model, model_faults


@pytest.fixture
def new_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing has been hashed yet."""
    monkeypatch.setattr(reseed.store.verified, "_HASHED", set())


def test_a_changed_file_of_the_same_size_is_not_served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ArtifactStore(str(tmp_path / "store"))
    artifact = store.write(step(), folder_with(tmp_path / "work", FILES))
    folder = store.fetch(artifact)
    monkeypatch.setattr(reseed.store.verified, "file_digest", lambda path: pytest.fail(f"{path} was hashed twice"))
    assert store.fetch(artifact) == folder
    monkeypatch.undo()
    change(folder / WEIGHTS, time_too=False)
    with pytest.raises(ReseedError, match=rf"{WEIGHTS}: its SHA-256 is .*remove {artifact.path}/manifest.json"):
        store.fetch(artifact)


def test_a_changed_file_is_noticed_by_the_next_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ArtifactStore(str(tmp_path / "store"))
    artifact = store.write(step(), folder_with(tmp_path / "work", FILES))
    change(store.fetch(artifact) / WEIGHTS, time_too=True)
    monkeypatch.setattr(reseed.store.verified, "_HASHED", set())
    with pytest.raises(ReseedError, match="its SHA-256 is"):
        store.fetch(artifact)


def test_links_and_strangers_are_refused(tmp_path: Path) -> None:
    store = ArtifactStore(str(tmp_path / "store"))
    artifact = store.write(step(), folder_with(tmp_path / "work", FILES))
    folder = store.fetch(artifact)
    (folder / ".nfs0001").write_bytes(b"left by a file system")
    assert store.fetch(artifact) == folder
    (folder / "adapter_model.safetensors").write_bytes(b"x")
    with pytest.raises(ReseedError, match=r"adapter_model\.safetensors: does not belong here"):
        store.fetch(artifact)
    (folder / "adapter_model.safetensors").unlink()
    for name, target in (("rows.jsonl", tmp_path / "rows.jsonl"), ("adapter", tmp_path / "adapter")):
        (folder / name).rename(target)
        (folder / name).symlink_to(target)
        with pytest.raises(ReseedError, match=r"is a link; wanted the file itself"):
            store.fetch(artifact)
        (folder / name).unlink()
        target.rename(folder / name)
    assert store.fetch(artifact) == folder


def test_a_changed_copy_is_fetched_again(
    s3_store: ArtifactStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact = s3_store.write(step(), folder_with(tmp_path / "work", FILES))
    change(s3_store.fetch(artifact) / WEIGHTS, time_too=True)
    monkeypatch.setattr(reseed.store.verified, "_HASHED", set())
    assert (s3_store.fetch(artifact) / WEIGHTS).read_bytes() == FILES[WEIGHTS]


def test_a_changed_model_is_not_served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, new_process: None) -> None:
    monkeypatch.setenv("RESEED_CACHE", str(tmp_path / "cache"))
    folder = cached("tiny", build)
    with monkeypatch.context() as patch:  # a model of 90 GB would take minutes
        patch.setattr(reseed.store.verified, "file_digest", lambda path: pytest.fail(f"{path} was hashed"))
        assert cached("tiny", build) == folder
    os.utime(folder / WEIGHTS)
    hashed: list[Path] = []
    with monkeypatch.context() as patch:
        patch.setattr(reseed.store.verified, "file_digest", lambda path: hashed.append(path) or file_digest(path))
        assert cached("tiny", build) == cached("tiny", build) == folder
    assert hashed == [folder / WEIGHTS], "touched, so hashed; and that is remembered"
    change(folder / WEIGHTS, time_too=False)
    with pytest.raises(
        ReseedError, match=rf"model tiny: {WEIGHTS}: its SHA-256 is .*; remove {folder} and start again"
    ):
        cached("tiny", build)
    (folder / WEIGHTS).unlink()
    with pytest.raises(ReseedError, match=f"{WEIGHTS}: is missing"):
        cached("tiny", build)


def test_a_model_changed_behind_its_stamp_is_found_by_the_whole_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, new_process: None
) -> None:
    monkeypatch.setenv("RESEED_CACHE", str(tmp_path / "cache"))
    folder = cached("tiny", build)
    change(folder / WEIGHTS, time_too=True)
    check_model(folder)
    (line,) = model_faults(folder, whole=True)
    assert line.startswith(f"{WEIGHTS}: its SHA-256 is")
    with pytest.raises(ReseedError, match="its SHA-256 is"):
        check_model(folder)


@pytest.mark.parametrize("damage", ["one line", "half a line", "half a sum", "empty", "not text"])
def test_a_damaged_list_of_sums_does_not_switch_the_check_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, new_process: None, damage: str
) -> None:
    monkeypatch.setenv("RESEED_CACHE", str(tmp_path / "cache"))
    folder = cached("tiny", build)
    change(folder / WEIGHTS, time_too=False)
    whole = (folder / CHECKSUMS).read_bytes()
    first = next(line for line in whole.splitlines(keepends=True) if WEIGHTS.encode() not in line)
    cut = {
        "one line": first,
        "half a line": whole[:-3],
        "half a sum": first + b"0a0b",
        "empty": b"",
        "not text": b"\xff",
    }
    (folder / CHECKSUMS).write_bytes(cut[damage])
    wanted = f"{WEIGHTS}: does not belong here" if damage == "one line" else f"{CHECKSUMS}: is empty or damaged"
    assert any(line == wanted for line in model_faults(folder, whole=True))
    with pytest.raises(ReseedError, match=f"{wanted}.*; remove {folder} and start again"):
        cached("tiny", build)


def test_a_file_that_was_added_to_a_model_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, new_process: None
) -> None:
    monkeypatch.setenv("RESEED_CACHE", str(tmp_path / "cache"))
    folder = cached("tiny", build)
    (folder / ".nfs0001").write_bytes(b"left by a file system")
    check_model(folder, whole=True)
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(ReseedError, match=r"model tiny: adapter_config\.json: does not belong here"):
        check_model(folder)
    (folder / "adapter_config.json").unlink()
    (folder / CHECKSUMS).unlink()
    assert model_faults(folder, whole=True) == [], "a folder from before there were lists"
