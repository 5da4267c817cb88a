from __future__ import annotations

from tiny_fixtures import one_thread, tiny_model

__all__ = ["one_thread", "tiny_model"]
