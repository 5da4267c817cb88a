"""Saving a model where it is needed, which is not always rank 0."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def save_model(model: Any, folder: Path) -> None:
    """`save_pretrained` on any rank: transformers writes nothing on those but rank 0, and every node has a cache to fill."""
    model.should_save_on_this_rank = lambda is_main_process: True
    model.save_pretrained(folder)
