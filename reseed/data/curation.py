"""Curation: rows unfit to train on are dropped, each with a reason, each reason with a count."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from reseed.problems import Problem
from reseed.records import ReseedError, Row

OF_GENERATION = ("finish", "tokens")  # what a generator says beside a row


def curate(rows: Iterable[Row], problem: Problem, dropped: Counter[str]) -> Iterator[Row]:
    """The rows that stay, in their order; those that do not are counted in `dropped`, by reason.

    Out go rows whose generation did not end by itself, rows that the problem refuses, and exact duplicates. Raises
    ReseedError at the end if no row is left.
    """
    seen: set[str] = set()
    extra = [column for column in OF_GENERATION if column not in problem.columns]
    for row in rows:
        finish = row.get("finish") if "finish" in extra else None
        row = {column: value for column, value in row.items() if column not in extra}
        reason = refuse(row, finish, problem) or ("duplicate" if row["id"] in seen else None)
        if reason is not None:
            dropped[reason] += 1
        else:
            seen.add(row["id"])
            yield row
    if not seen:
        counts = ", ".join(f"{reason} {count}" for reason, count in dropped.items()) or "there were none"
        raise ReseedError(
            f"curation: no row is left of {dropped.total()} ({counts}); look at the source, or generate longer texts"
        )


def refuse(row: Row, finish: str | None, problem: Problem) -> str | None:
    """Why a row is dropped, or None."""
    if finish == "length":
        return "truncated"
    if finish == "too-long":
        return "too-long"
    return problem.refuse(row)
