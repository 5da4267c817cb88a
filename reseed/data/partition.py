"""Seeded holdouts of whole groups, the same on every machine and in every process."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from reseed.recipe import DataSettings, Holdout, nearest
from reseed.records import ReseedError, Row


@dataclass(frozen=True)
class Partition:
    """Three disjoint sets of rows: to train on, to choose the best step by, and to be scored."""

    train: list[Row]
    validation: list[Row]
    test: list[Row]


def rank(seed: int, purpose: str, value: str) -> str:
    """A stable pseudo-random order: sort by it. Python's `hash()` differs from process to process."""
    return hashlib.sha256(f"{seed}\0{purpose}\0{value}".encode()).hexdigest()


def partition(rows: Sequence[Row], settings: DataSettings) -> Partition:
    """Draw `limit` rows, then hold out whole groups for the test, then for validation; the rest is trained on.

    Both fractions are of the drawn rows. No group stands on two sides, whichever column each holdout groups by.
    """
    drawn = draw(rows, settings)
    rest, test = hold_out(drawn, settings.test, round(settings.test.fraction * len(drawn)), settings.seed, "test")
    wanted = round(settings.validation.fraction * len(drawn))
    train, validation = hold_out(rest, settings.validation, wanted, settings.seed, "validation")
    parts = Partition(train, validation, test)
    for name, part in (("train", train), ("validation", validation), ("test", test)):
        if not part:
            raise ReseedError(
                f"partition: no row for {name} out of {len(drawn)} rows; give more rows, or change data.{name}.fraction"
            )
    return parts


def draw(rows: Sequence[Row], settings: DataSettings) -> list[Row]:
    """At most `limit` rows, chosen by the seed, in their old order."""
    if settings.limit is None or len(rows) <= settings.limit:
        return list(rows)
    chosen = {
        row["id"] for row in sorted(rows, key=lambda row: rank(settings.seed, "limit", row["id"]))[: settings.limit]
    }
    return [row for row in rows if row["id"] in chosen]


def hold_out(rows: Sequence[Row], how: Holdout, wanted: int, seed: int, purpose: str) -> tuple[list[Row], list[Row]]:
    """Split off whole groups until `wanted` rows are reached; a group that would overshoot by much is passed over."""
    if rows and how.group_by not in rows[0]:
        columns = [column for column in rows[0] if column != "id"]
        raise ReseedError(
            f"data.{purpose}.group_by: no column '{how.group_by}'{nearest(how.group_by, columns)}; "
            f"the rows have {', '.join(columns)}"
        )
    sizes: dict[str, int] = {}
    for row in rows:
        sizes[row[how.group_by]] = sizes.get(row[how.group_by], 0) + 1
    held: set[str] = set()
    count = 0
    for group in sorted(sizes, key=lambda value: rank(seed, purpose, value)):
        if count >= wanted:
            break
        if count and count + sizes[group] > wanted + max(1, wanted // 10):
            continue
        held.add(group)
        count += sizes[group]
    return [r for r in rows if r[how.group_by] not in held], [r for r in rows if r[how.group_by] in held]
