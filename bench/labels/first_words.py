"""Prompt recovery taught the first words of the text in place of the prompt: what must be worse, whatever the seed.

    PYTHONPATH=bench reseed run iteration-10-completions --set data.train=PATH.csv --set baseline=completion \\
        --set 'variants={completion: {}, first-words: {problem: labels.first_words}}'
"""

from __future__ import annotations

from reseed.problems.prompt_recovery import *  # noqa: F403
from reseed.records import Row

WORDS = 8


def completion(row: Row) -> str:
    """What can be read off the prompt itself, and names no prompt."""
    return f" {' '.join(row['original_text'].split()[:WORDS])}"
