"""Curation: rows unfit to train on are dropped, each with a reason, each reason with a count."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from reseed.problems import Problem
from reseed.records import Finish, ReseedError, Row


@dataclass(frozen=True)
class Curated:
    """The rows that stay, in their order, and what was dropped: reason → count."""

    rows: list[Row]
    dropped: dict[str, int]


def curate(rows: Sequence[Row], finishes: Mapping[str, Finish], problem: Problem) -> Curated:
    """Drop rows whose generation did not end by itself, rows that the problem refuses, and exact duplicates."""
    kept: list[Row] = []
    dropped: Counter[str] = Counter()
    seen: set[str] = set()
    for row in rows:
        reason = refuse(row, finishes.get(row["id"], "stop"), problem) or ("duplicate" if row["id"] in seen else None)
        if reason is not None:
            dropped[reason] += 1
        else:
            seen.add(row["id"])
            kept.append(row)
    if not kept:
        counts = ", ".join(f"{reason} {count}" for reason, count in dropped.items()) or "there were none"
        raise ReseedError(
            f"curation: no row is left of {len(rows)} ({counts}); look at the source, or generate longer texts"
        )
    return Curated(kept, dict(sorted(dropped.items())))


def refuse(row: Row, finish: Finish, problem: Problem) -> str | None:
    """Why a row is dropped, or None."""
    if finish == "length":
        return "truncated"
    if finish == "too-long":
        return "too-long"
    return problem.refuse(row)
