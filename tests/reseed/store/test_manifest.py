"""What a stranger wrote into the store: refused when it is read, before a file is opened."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from stored_files import FILES, folder_with, step

from reseed.records import ReseedError
from reseed.store.artifacts import ArtifactStore
from reseed.store.manifest import read_manifest, read_target

FILE = {"path": "rows.jsonl", "size": 3, "sha256": "0" * 64}
PATH = "adapter/one/abc123/manifest.json"


def manifest(**changes: Any) -> bytes:
    values = {
        "kind": "adapter", "name": "one", "key": "abc123", "verb": "train", "version": 1, "spec": {}, "inputs": {},
        "seed": 0, "attempt": "0123456789ab", "files": [FILE], "metrics": {}, "packages": {}, "git_commit": None,
        "seconds": 1.0, "created": "2026-01-01",
    }  # fmt: skip
    return json.dumps(values | changes).encode()


def files(*paths: str, **changes: Any) -> dict[str, Any]:
    return {"files": [FILE | {"path": path} | changes for path in paths]}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        *((files(path), "files.0.path: wanted a relative path without '..'")
          for path in ("/etc/passwd", "../up", "a/../../up", "a//b", "./a", "a/", "", "a\\b", "a\nb", "a\x1b[31m", "a\x00")),
        *(({"attempt": attempt}, "attempt: ") for attempt in ("../../out", "/tmp", "0123/45", "ABC", "", "abc\n")),
        (files("a", "a"), "files: 'a' is listed twice"),
        (files("a/b", "a"), "files: 'a/b' is listed twice, or lies inside another file"),
        (files("a", size=-1), "files.0.size: "),
        (files("a", sha256="0" * 63), "files.0.sha256: "),
        ({"inputs": {"rows": "rows/one"}}, "rows: wanted kind/name/key, saw 'rows/one'"),
        ({"inputs": {"rows": "rows/../one"}}, "rows: wanted kind/name/key, saw 'rows/../one'"),
        ({"key": "another"}, "it describes adapter/one/another"),
        ({"kind": "results"}, "it describes results/one/abc123"),
        ({"name": "../one"}, "it describes adapter/../one/abc123"),
        ({"name": "one\u202etxt.\x1b[31m"}, "it describes adapter/one txt. [31m/abc123"),
    ],
)  # fmt: skip
def test_a_manifest_that_leads_elsewhere_is_refused(changes: dict[str, Any], said: str) -> None:
    assert read_manifest("s3://b", PATH, manifest()).artifact.path == "adapter/one/abc123"
    with pytest.raises(ReseedError) as caught:
        read_manifest("s3://b", PATH, manifest(**changes))
    message = str(caught.value)
    assert f"store s3://b: {PATH} is damaged; remove it to run the step again" in message
    assert said in message
    assert message.isprintable(), "what a stranger wrote reaches no terminal as it is"


@pytest.mark.parametrize("key", ["../x", "", "a/b", "a\x1bb"])
def test_a_ref_that_leads_elsewhere_is_refused(key: str) -> None:
    content = json.dumps({"kind": "adapter", "name": "one", "key": key, "move": "0"}).encode()
    with pytest.raises(
        ReseedError, match=r"refs/adapter/one/latest.json is damaged; remove it and publish again"
    ) as caught:
        read_target("s3://b", "refs/adapter/one/latest.json", content)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("how", ["file", "attempt", "key"])
def test_nothing_is_written_outside_the_cache(s3_store: ArtifactStore, tmp_path: Path, how: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    artifact = s3_store.write(step(), folder_with(tmp_path / "work", FILES))
    whole = s3_store.manifest(artifact)
    content = json.loads(whole.model_dump_json())
    change: dict[str, Callable[[], None]] = {
        "file": lambda: content["files"][0].update(path=f"{outside}/written"),
        "attempt": lambda: content.update(attempt="../" * 20 + str(outside)[1:]),
        "key": lambda: content.update(key="another"),
    }
    change[how]()
    s3_store.fs.pipe_file(f"{s3_store.root}/{artifact.path}/manifest.json", json.dumps(content).encode())
    if how == "file":
        s3_store.fs.pipe_file(f"{s3_store.root}/{whole.place}/{outside}/written", b"x")
    with pytest.raises(ReseedError, match=r"manifest.json is damaged; remove it to run the step again"):
        s3_store.fetch(artifact)
    assert list(outside.iterdir()) == []
    assert not (tmp_path / "cache").exists()


def test_a_file_name_that_cannot_be_stored(tmp_path: Path) -> None:
    store = ArtifactStore(str(tmp_path / "store"))
    with pytest.raises(ReseedError, match="a file's name cannot be stored: path: wanted a relative path"):
        store.write(step(), folder_with(tmp_path / "work", {"a\nb": b""}))
