from __future__ import annotations

from pathlib import Path

import pytest
from tiny_fixtures import one_thread, tiny_model

__all__ = ["one_thread", "tiny_model"]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty model cache of the test's own."""
    monkeypatch.setenv("RESEED_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"
