"""Prompt recovery taught the first words of the text in place of the prompt: what must be worse, whatever the seed."""

from __future__ import annotations

from reseed.problems.prompt_recovery import (
    blend,
    columns,
    higher_is_better,
    metric,
    parse,
    prompt,
    refuse,
    scores,
    shorten,
)
from reseed.records import Row

__all__ = [
    "blend",
    "columns",
    "completion",
    "higher_is_better",
    "metric",
    "parse",
    "prompt",
    "refuse",
    "scores",
    "shorten",
]
WORDS = 8


def completion(row: Row) -> str:
    """What can be read off the prompt itself, and names no prompt."""
    return f" {' '.join(row['original_text'].split()[:WORDS])}"
