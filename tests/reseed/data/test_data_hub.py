"""Datasets of a hub: a name is the commit that it means when a run is planned."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hub_server import COMMIT, hub_of

ROOT = Path(__file__).resolve().parents[3]
NAME = "reseed-tests/rows"
CARD = """---
configs:
- config_name: small
  data_files: [{split: train, path: small/train.csv}, {split: test, path: small/test.csv}]
- config_name: large
  data_files: [{split: train, path: "*/*.csv"}]
- config_name: default
  data_files: [{split: train, path: small/test.csv}]
---
"""
READ = """
import sys
from reseed.data.sources import read_source, resolve_source
from reseed.problems import load_problem
from reseed.records import ReseedError
from reseed.store.artifacts import ArtifactStore

store = ArtifactStore("store")
name, config, split = sys.argv[1], sys.argv[2] or None, sys.argv[3]
try:
    source = resolve_source(name, store, config, split)
    rows = read_source(source, store, load_problem("prompt-recovery"))
    print(source.content, [row["original_text"] for row in rows])
except ReseedError as error:
    print(error)
"""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    (folder / "small").mkdir(parents=True)
    (folder / "README.md").write_text(CARD)
    for split, text in (("train", "a"), ("test", "b")):
        (folder / "small" / f"{split}.csv").write_text(f"original_text,rewritten_text,rewrite_prompt\n{text},x,y\n")
    return folder


def test_a_dataset_by_config_split_and_commit_also_without_a_network(tmp_path: Path, repository: Path) -> None:
    """In processes of their own: `datasets` reads its settings when it is imported."""

    def read(url: str, name: str, config: str = "small", split: str = "train") -> str:
        own = {"HF_ENDPOINT": url, "HF_HOME": str(tmp_path / "home"), "RESEED_CACHE": str(tmp_path / "cache")}
        done = subprocess.run(
            [sys.executable, "-c", READ, name, config, split],
            env={**os.environ, **own, "PYTHONPATH": str(ROOT), "NO_PROXY": "127.0.0.1"},
            cwd=tmp_path, capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    with hub_of(NAME, repository, "dataset") as hub:
        assert read(hub.url, NAME, split="test") == f"{NAME}@{COMMIT}:small[test] ['b']"
        assert read(hub.url, f"{NAME}@main", "large") == f"{NAME}@{COMMIT}:large ['b', 'a']"
        assert "check data.config, data.split" in read(hub.url, NAME, "smal")
        assert "the hub has none of that name and revision" in read(hub.url, f"{NAME}@gone")
    assert read(hub.url, NAME, split="test") == f"{NAME}@{COMMIT}:small[test] ['b']", "from the cache"
    assert "the hub did not give it" in read(hub.url, NAME, ""), "the default config was never loaded, others were"
    other = f"{NAME}@{'b' * 40}"
    assert f"{other}:small[test]: the hub did not give" in read(hub.url, other, split="test"), (
        "the cache has another commit"
    )
    assert "the hub cannot be asked for a dataset of that name" in read(hub.url, "reseed-tests/unknown")
