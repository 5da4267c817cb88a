from __future__ import annotations

from pathlib import Path

import pytest
from tiny_fixtures import one_thread
from tiny_talker import save_talker

__all__ = ["one_thread"]


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """No model of these tests goes into the machine's cache."""
    monkeypatch.setenv("RESEED_CACHE", str(tmp_path_factory.getbasetemp() / "engine-cache"))


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny dense Llama with its tokenizer; nobody writes into it."""
    return save_talker(tmp_path_factory.mktemp("models") / "tiny")
