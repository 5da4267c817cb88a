"""How a report writes texts and numbers, in every format the same."""

from __future__ import annotations

import math
import unicodedata

from reseed.records import MemberResult


def one_line(text: str, limit: int | None = None) -> str:
    """The text on one line without control characters, cut to `limit` characters with an ellipsis."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if limit is None or len(line) <= limit else line[: limit - 1].rstrip() + "…"


def visible(text: str) -> str:
    """The text with its control characters as codes, which a terminal would obey; lines and tabs stay.

    Those that turn the direction of writing are codes too: they show a text other than the one that is there.
    """
    return "".join(c.encode("unicode_escape", "backslashreplace").decode() if obeyed(c) else c for c in text)


def obeyed(character: str) -> bool:
    """True for what does something where it should be seen."""
    kind = unicodedata.category(character)
    turns = character in "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
    return character not in "\n\t" and (kind in ("Cc", "Cs", "Zl", "Zp") or turns)


def score(value: float) -> str:
    """A score with 4 decimals."""
    return f"{value:.4f}"


def signed(difference: float) -> str:
    """A difference of scores with its sign and 4 decimals."""
    return f"{difference:+.4f}".replace("-", "−")


def mean_and_std(mean: float, std: float | None) -> str:
    """`mean ± std`; the mean alone where one seed leaves no deviation."""
    return score(mean) if std is None or not math.isfinite(std) else f"{score(mean)} ± {score(std)}"


def count(value: int, noun: str, plural: str | None = None) -> str:
    """`1 row`, `1,200 rows`."""
    return f"{value:,} {noun if value == 1 else plural or noun + 's'}"


def cut_off(member: MemberResult) -> str:
    """How many of a member's answers met the length limit before they ended; empty where that was not counted."""
    return "" if member.cut_off is None else str(member.cut_off)


def direction(higher_is_better: bool) -> str:
    """Which way a metric improves."""
    return "higher is better" if higher_is_better else "lower is better"
