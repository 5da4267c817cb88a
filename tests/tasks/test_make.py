"""What a task makes is what was planned, whatever moves in between."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from plain_step import plain_step
from tiny import save_profile

from reseed.data.rows import open_rows, write_rows
from reseed.line import Line, plan_line
from reseed.recipe.profile import load_profile
from reseed.recipe.reading import load_recipe
from reseed.records import Artifact, ReseedError
from reseed.store.artifacts import ArtifactStore
from tasks.make import make

HOLDOUT = {"fraction": 0.2, "group_by": "rewrite_prompt"}


def row(text: str) -> dict[str, str]:
    return {"id": text, "original_text": text, "rewritten_text": text.upper(), "rewrite_prompt": f"Shout {text}."}


def publish(store: ArtifactStore, folder: Path, day: str) -> Artifact:
    """A dataset version of one row, which `latest` then names."""
    folder.mkdir()
    write_rows(folder / "rows.parquet", [row(day)])
    made = store.write(plain_step("publish", 1, "dataset", "rewrites", {"date": day}), folder)
    store.point("dataset", "rewrites", "latest", made)
    return made


def planned(folder: Path, train: str, **variants: Any) -> Line:
    recipe = {
        "name": "moved", "problem": "prompt-recovery", "question": "Which rows?", "seeds": [0], "generation": {"rows": 8},
        "data": {"train": train, "validation": HOLDOUT, "test": HOLDOUT}, "variants": variants or {"default": {}},
    }  # fmt: skip
    (folder / "moved.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    place = load_profile(str(save_profile(folder, str(folder / "store"))))
    return plan_line(load_recipe(str(folder / "moved.yaml")), place, ArtifactStore(place.store))


def test_a_dataset_that_moves_after_planning_changes_nothing(tmp_path: Path) -> None:
    """A nightly starts at 02:00 beside an experiment, also while an earlier variant generates."""
    store = ArtifactStore(str(tmp_path / "store"))
    old = publish(store, tmp_path / "old", "2026-11-26")
    line = planned(tmp_path, "rewrites@latest", written={"data": {"train": None}}, stored={})
    step = line.rows("stored")
    new = publish(store, tmp_path / "new", "2026-11-27")
    assert make.fn(line.place, step) == step.artifact
    manifest = store.manifest(step.artifact)
    assert manifest.inputs == {"source": old.path}
    assert [kept["original_text"] for kept in open_rows(store.fetch(step.artifact))] == ["2026-11-26"]
    again = planned(tmp_path, "rewrites@latest").rows("default")
    assert again.inputs == {"source": new}, "the next run takes the new version"
    assert again.artifact != step.artifact


def test_a_file_that_changes_after_planning_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row("before")) + "\n")
    line = planned(tmp_path, str(path))
    path.write_text(json.dumps(row("after")) + "\n")
    with pytest.raises(ReseedError, match=r"was changed after this run was planned.*start the same command again"):
        make.fn(line.place, line.rows("default"))
    assert line.store.find(line.rows("default").artifact) is None
