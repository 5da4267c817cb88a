"""The doctor names what is missing and what is damaged, with the way out, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
from stored_files import FILES, WEIGHTS, build, change, folder_with, step

from flows.cli import main
from reseed.doctor import examine, verify
from reseed.models.cache import cached
from reseed.recipe.profile import Profile, load_profile
from reseed.store.artifacts import ArtifactStore


def profile(store_url: str) -> Profile:
    return load_profile("laptop", (f"store={store_url}",))


def test_a_healthy_machine(store: ArtifactStore, tmp_path: Path) -> None:
    found = {one.thing: one for one in examine(profile(store.url))}
    assert [one for one in found.values() if one.fix] == []
    assert {"python", "packages", "machine", "gpu", "cache", "store", "generator", "student", "embedder"} == set(found)
    assert f"{store.url}, can be written" in found["store"].state
    assert "to be fetched, by `reseed fetch --profile laptop`" in found["generator"].state
    store.write(step(), folder_with(tmp_path / "work", FILES))
    (all_of_it,) = verify(profile(store.url))
    assert all_of_it.state.startswith("1 of 1 artifacts are whole")


def test_every_damage_is_named_with_its_fix(store: ArtifactStore, tmp_path: Path) -> None:
    folder = folder_with(tmp_path / "work", FILES)
    changed, gone, whole = (store.write(step(name), folder) for name in ("changed", "gone", "whole"))
    if store.local:
        change(store.fetch(changed) / WEIGHTS, time_too=True)
    else:
        store.fs.pipe_file(f"{store.root}/{store.manifest(changed).place}/{WEIGHTS}", FILES[WEIGHTS][::-1])
    store.fs.rm(f"{store.root}/{store.manifest(gone).place}/rows.jsonl")
    assert store.objects.create("adapter/empty/abc/manifest.json", b"")
    model = cached("tiny", build)
    change(model / WEIGHTS, time_too=True)
    found = {one.thing: one for one in verify(profile(store.url))}
    assert f"{WEIGHTS}: its SHA-256 is" in found[changed.path].state
    assert found[changed.path].fix == f"remove {changed.path}/manifest.json to run the step again"
    assert "rows.jsonl: is missing" in found[gone.path].state
    assert "is damaged; remove it to run the step again" in found["adapter/empty/abc/manifest.json"].fix
    assert f"{WEIGHTS}: its SHA-256 is" in found["model tiny"].state
    assert found["model tiny"].fix == f"remove {model}"
    assert found["store"].state.startswith("1 of 4 artifacts are whole")
    assert whole.path not in found


def test_the_command_ends_with_1_where_something_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RESEED_CACHE", str(tmp_path / "cache"))
    (tmp_path / "file").write_text("x")
    for place, code in (("store", 0), ("file", 1)):
        with pytest.raises(SystemExit) as ended:
            main(["doctor", "--set", f"profile.store={tmp_path / place}"])
        assert ended.value.code == code
    assert "check the folder" in capsys.readouterr().out
