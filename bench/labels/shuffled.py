"""Prompt recovery taught the prompts of other rows: they show what a prompt looks like, and not which one it was."""

from __future__ import annotations

import hashlib

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

PROMPTS = (  # from the same file; each row gets one of them by its id, so that none belongs to its texts
    "Frame this as if it were a tweet.",
    "Rework this as if it were a line from a fairy tale.",
    "Summarize this self-help book chapter in bullet points.",
    "Style it as a traveler's tales from parallel universes.",
    "Give this speech on equality a touch of humor and lightheartedness.",
    "Convert this movie review into a social media post.",
    "Expand this outline in a 5-paragraph essay",
    "Rewrite this in a humorous style",
)


def completion(row: Row) -> str:
    """A prompt that the row's id chooses."""
    return f" {PROMPTS[hashlib.sha256(row['id'].encode()).digest()[0] % len(PROMPTS)]}"
