from __future__ import annotations

from pathlib import Path

import pytest
from tiny import save_model


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny dense Llama with its tokenizer; nobody writes into it."""
    return save_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty model cache of the test's own."""
    monkeypatch.setenv("RESEED_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"
