from __future__ import annotations

from pathlib import Path

import pytest
from tiny_fixtures import one_thread, tiny_model

__all__ = ["one_thread", "tiny_model"]


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where upcycled tiny models go, once for all tests here."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def training_environment(monkeypatch: pytest.MonkeyPatch, shared_cache: Path) -> None:
    """As in a worker without a GPU."""
    monkeypatch.setenv("RESEED_CACHE", str(shared_cache))
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
