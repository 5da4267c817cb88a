"""Prompt recovery taught prompts that have nothing to do with the row: they show what a prompt looks like, and no more.

    PYTHONPATH=bench reseed run iteration-10-completions --set data.train=PATH.csv --set baseline=completion \\
        --set 'variants={completion: {}, shuffled: {problem: labels.shuffled}}'
"""

from __future__ import annotations

import hashlib

from reseed.problems.prompt_recovery import *  # noqa: F403
from reseed.records import Row

PROMPTS = (  # from the same file; a row's id chooses one, which may happen to be its own
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
