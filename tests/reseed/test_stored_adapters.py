"""An adapter is found by the beginning of its key, whatever else lies beside it."""

from __future__ import annotations

from pathlib import Path

import pytest
from plain_step import plain_step
from stored_files import FILES, folder_with, step

from reseed.models.names import ModelSpec
from reseed.records import ReseedError
from reseed.settings import TrainingSettings
from reseed.steps.stored_adapters import continuation_mistakes, find_adapter
from reseed.store.artifacts import ArtifactStore


def test_an_adapter_is_found_without_reading_the_others(
    store: ArtifactStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = store.write(step(), folder_with(tmp_path / "work", FILES))
    for number in range(30):
        assert store.objects.create(f"adapter/one/zzz{number:02}/manifest.json", b"")
    assert find_adapter(store, str(whole)) == find_adapter(store, whole.path) == whole
    assert caplog.messages == [], "not one of the others was read"
    with pytest.raises(ReseedError, match=r"30 keys begin so: zzz00, .*zzz19, …$"):
        find_adapter(store, "adapter/one/zzz")
    with pytest.raises(ReseedError, match=r"zzz07/manifest.json is damaged; remove it"):
        find_adapter(store, "adapter/one/zzz07")


def test_what_is_not_there_is_answered_with_what_is(store: ArtifactStore, tmp_path: Path) -> None:
    whole = store.write(step(), folder_with(tmp_path / "work", FILES))
    assert store.objects.create("adapter/begun/abc/0123/adapter.json", b"")
    for asked, said in (
        ("adapter/one/xyz", f"its keys are {whole.key[:12]}"),
        ("adapter/onn/xyz", "no such name .did you mean 'one'"),
        ("adapter/begun/abc", "nothing of that name is finished"),
    ):
        with pytest.raises(ReseedError, match=said):
            find_adapter(store, asked)


@pytest.mark.parametrize(
    ("stored", "fits"), [("a/b", True), (f"a/b@{'c' * 40}", True), (f"a/b@{'d' * 40}", False), ("a/x", False)]
)
def test_an_adapter_from_before_commits_were_known_is_continued(
    store: ArtifactStore, tmp_path: Path, stored: str, fits: bool
) -> None:
    """Its base is a repository's name alone, which no model of today has."""
    spec = {"training": {}, "model": {"name": stored}}
    made = store.write(plain_step("train", 1, "adapter", "old", spec), folder_with(tmp_path / "work", FILES))
    model = ModelSpec(name=f"a/b@{'c' * 40}")
    assert (continuation_mistakes(store.manifest(made), "late", TrainingSettings(), model) == []) is fits
