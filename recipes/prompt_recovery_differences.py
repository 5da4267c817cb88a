"""Prompt recovery with a short chain of thought: two sentences on how the texts differ, then the prompt."""

from __future__ import annotations

from reseed.problems.prompt_recovery import *  # noqa: F403
from reseed.problems.prompt_recovery import completion as prompt_alone
from reseed.problems.prompt_recovery import parse as first_line
from reseed.problems.prompt_recovery import shorten as short_texts
from reseed.records import Row

OF_WHOLE_TEXTS = "differences"  # a row's own column: what was counted before the texts were cut
THEREFORE = "So the prompt was:"


def completion(row: Row) -> str:
    """The differences, counted rather than written by a model, and the prompt."""
    return f" {differences(row)} {THEREFORE}{prompt_alone(row)}"


def shorten(row: Row, keep: float) -> Row:
    """Cut both texts, but not what is said of them."""
    return {**short_texts(row, keep), OF_WHOLE_TEXTS: differences(row)}


def differences(row: Row) -> str:
    """Two sentences: on the length and the lines, and on the words that stayed."""
    if OF_WHOLE_TEXTS in row:
        return row[OF_WHOLE_TEXTS]
    original, rewritten = row["original_text"], row["rewritten_text"]
    before, after = original.lower().split(), rewritten.lower().split()
    ratio = len(after) / max(len(before), 1)
    length = "about as long" if 0.8 < ratio < 1.25 else "shorter" if ratio < 1 else "longer"
    kept = len(set(after) & set(before)) / max(len(set(after)), 1)
    words = "most" if kept > 0.6 else "about half" if kept > 0.4 else "few"
    shape = "in several lines" if len(rewritten.strip().splitlines()) > 2 else "in one piece"
    return f"The rewritten text is {length} and {shape}. It keeps {words} of the words."


def parse(text: str) -> str:
    """What follows the differences, and nothing where the model does not come to the prompt."""
    return first_line(text.partition(THEREFORE)[2])
