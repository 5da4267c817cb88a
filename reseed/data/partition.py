"""Seeded holdouts of whole groups, the same on every machine and in every process."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from reseed.mistakes import nearest
from reseed.records import ReseedError, Row
from reseed.settings import DataSettings, Holdout


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

    Both fractions are of the drawn rows. The test shares no group of its column with any other row, and the validation
    none of its own column with the training rows. The rows' order decides nothing but the order within each part.
    """
    for purpose, how in (("test", settings.test), ("validation", settings.validation)):
        check_column(rows, how.group_by, f"data.{purpose}.group_by")
    drawn = draw(rows, settings)
    rest, test = hold_out(drawn, settings.test, round(settings.test.fraction * len(drawn)), settings.seed, "test")
    wanted = round(settings.validation.fraction * len(drawn))
    train, validation = hold_out(rest, settings.validation, wanted, settings.seed, "validation")
    parts = Partition(train, validation, test)
    empty = [name for name in ("train", "validation", "test") if not getattr(parts, name)]
    if empty:
        raise ReseedError(f"partition: no row for {' and '.join(empty)} out of {counted(drawn, settings)}")
    return parts


def check_column(rows: Sequence[Row], column: str, key: str) -> None:
    """Refuse to group by a column that the rows do not have."""
    if rows and column not in rows[0]:
        columns = [name for name in rows[0] if name != "id"]
        raise ReseedError(
            f"{key}: no column '{column}'{nearest(column, columns)}; the rows have {', '.join(columns)}, and id"
        )


def counted(rows: Sequence[Row], settings: DataSettings) -> str:
    """What there was to divide, and the cure when it was too little."""
    groups = {how.group_by: len({row[how.group_by] for row in rows}) for how in (settings.test, settings.validation)}
    found = " and ".join(f"{count} different {column}" for column, count in groups.items())
    return (
        f"{len(rows)} rows with {found}; wanted at least three groups, one for each part: give more rows, change "
        f"data.test.fraction ({settings.test.fraction}) or data.validation.fraction ({settings.validation.fraction}), "
        "or group by another column"
    )


def draw(rows: Sequence[Row], settings: DataSettings) -> list[Row]:
    """At most `limit` rows, chosen by the seed, in their old order."""
    if settings.limit is None or len(rows) <= settings.limit:
        return list(rows)
    chosen = {
        row["id"] for row in sorted(rows, key=lambda row: rank(settings.seed, "limit", row["id"]))[: settings.limit]
    }
    return [row for row in rows if row["id"] in chosen]


def hold_out(rows: Sequence[Row], how: Holdout, wanted: int, seed: int, purpose: str) -> tuple[list[Row], list[Row]]:
    """Split off whole groups until `wanted` rows are reached; a group that would overshoot by much is passed over.

    So what is held out is not a fair sample of the groups: a large one is held out less often than a small one, and never
    if it alone is more than 1.1 × `wanted`, while others are small enough. A score over held-out rows then says too little
    of large groups (a test measures by how much). Another rule would move the rows of every stored partition.
    """
    sizes: dict[str, int] = {}
    for row in rows:
        sizes[row[how.group_by]] = sizes.get(row[how.group_by], 0) + 1
    held: set[str] = set()
    count = 0
    order = sorted(sizes, key=lambda value: rank(seed, purpose, value))
    for group in order:
        if count < wanted and count + sizes[group] <= wanted + max(1, wanted // 10):
            held.add(group)
            count += sizes[group]
    if not held and wanted and order:
        held.add(min(order, key=lambda value: sizes[value]))  # every group is too large: the smallest does least harm
    return [r for r in rows if r[how.group_by] not in held], [r for r in rows if r[how.group_by] in held]
