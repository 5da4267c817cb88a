"""Saving a model on any rank."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def save_model(model: Any, folder: Path) -> None:
    """`save_pretrained` on any rank: transformers would write on rank 0 only, but every node has a cache to fill."""
    model.should_save_on_this_rank = lambda is_main_process: True
    model.save_pretrained(folder)
