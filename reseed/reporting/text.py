"""How reports write numbers, the same in every format."""

from __future__ import annotations

import math

from reseed.results import MemberResult

SMALLEST = 0.00005  # that 4 decimals show


def score(value: float) -> str:
    """A score with 4 decimals; with 2 digits where those would all be zeros."""
    return f"{value:.4f}" if not 0 < abs(value) < SMALLEST else f"{value:.2g}"


def signed(difference: float) -> str:
    """A difference of scores with its sign, and digits as a score has them."""
    return ("−" if difference < 0 else "+") + score(abs(difference)).replace("-", "−")


def p_value(p: float) -> str:
    """A p value with 3 decimals."""
    return f"{p:.3f}" if p >= 0.0005 else "< 0.001"


def mean_and_std(mean: float, std: float | None) -> str:
    """`mean ± std`; the mean alone if there is one seed and so no deviation."""
    return score(mean) if std is None or not math.isfinite(std) else f"{score(mean)} ± {score(std)}"


def count(value: int, noun: str, plural: str | None = None) -> str:
    """`1 row`, `1,200 rows`."""
    return f"{value:,} {noun if value == 1 else plural or plural_of(noun)}"


def plural_of(noun: str) -> str:
    """The plural of a regular noun; of one that looks like a plural, the same."""
    if noun.endswith("y") and noun[-2:-1] not in set("aeiou"):
        return f"{noun[:-1]}ies"
    if noun.endswith(("ss", "x", "ch", "sh")):
        return f"{noun}es"
    return noun if noun.endswith("s") else f"{noun}s"


def cut_off(member: MemberResult) -> str:
    """How many of a member's answers hit the length limit; empty if that was not counted."""
    return "" if member.cut_off is None else str(member.cut_off)


def direction(higher_is_better: bool) -> str:
    """Which way a metric improves."""
    return "higher is better" if higher_is_better else "lower is better"
