"""Seeded holdouts of whole groups, the same on every machine and in every process."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from reseed.data.rows import Rows
from reseed.mistakes import nearest
from reseed.records import ReseedError
from reseed.settings import DataSettings, Holdout


@dataclass(frozen=True)
class Partition:
    """Three disjoint sets of rows: to train on, to choose the best step by, and to be scored."""

    train: Rows
    validation: Rows
    test: Rows


def rank(seed: int, purpose: str, value: str) -> str:
    """A stable pseudo-random order: sort by it. Python's `hash()` differs from process to process."""
    return hashlib.sha256(f"{seed}\0{purpose}\0{value}".encode()).hexdigest()


def partition(rows: Rows, settings: DataSettings) -> Partition:
    """Draw `limit` rows, then hold out whole groups for the test, then for validation; the rest is trained on.

    Both fractions are of the drawn rows. The test shares no group of its column with any other row, and the validation
    none of its own column with the training rows. The rows' order decides nothing but the order within each part.
    """
    for purpose, how in (("test", settings.test), ("validation", settings.validation)):
        check_column(rows.columns, how.group_by, f"data.{purpose}.group_by")
    drawn = draw(rows, settings)
    left = 2 if settings.test.group_by == settings.validation.group_by else 1
    rest, test = hold_out(drawn, settings.test, round(settings.test.fraction * len(drawn)), settings.seed, "test", left)
    wanted = round(settings.validation.fraction * len(drawn))
    train, validation = hold_out(rest, settings.validation, wanted, settings.seed, "validation")
    parts = Partition(train, validation, test)
    empty = [name for name in ("train", "validation", "test") if not len(getattr(parts, name))]
    if empty:
        raise ReseedError(f"partition: no row for {' and '.join(empty)} out of {counted(drawn, settings)}")
    return parts


def check_column(columns: Sequence[str], column: str, key: str) -> None:
    """Refuse to group by a column that the rows do not have."""
    if columns and column not in columns:
        others = [name for name in columns if name != "id"]
        raise ReseedError(
            f"{key}: no column '{column}'{nearest(column, others)}; the rows have {', '.join(others)}, and id"
        )


def counted(rows: Rows, settings: DataSettings) -> str:
    """What there was to split, and the cure when it was too little."""
    groups = {how.group_by: len(set(rows.column(how.group_by))) for how in (settings.test, settings.validation)}
    found = " and ".join(f"{count} different {column}" for column, count in groups.items())
    return (
        f"{len(rows)} rows with {found}; wanted at least three groups, one for each part: give more rows, change "
        f"data.test.fraction ({settings.test.fraction}) or data.validation.fraction ({settings.validation.fraction}), "
        "or group by another column"
    )


def draw(rows: Rows, settings: DataSettings) -> Rows:
    """At most `limit` rows, chosen by the seed, in their old order."""
    if settings.limit is None or len(rows) <= settings.limit:
        return rows
    ids = rows.column("id")
    chosen = set(sorted(ids, key=lambda row_id: rank(settings.seed, "limit", row_id))[: settings.limit])
    return rows.select([place for place, row_id in enumerate(ids) if row_id in chosen])


def hold_out(rows: Rows, how: Holdout, wanted: int, seed: int, purpose: str, left: int = 1) -> tuple[Rows, Rows]:
    """Split off whole groups, in the seed's order, until there are `wanted` rows; the last one may go beyond.

    A large group is held out about as often as a small one (a test measures it), so the held-out rows are a fair sample of the
    groups. Only a group of more than half of the rows is always kept: without it there would be little left to train on.
    `left` groups stay for the parts that come later.
    """
    groups = rows.column(how.group_by)
    sizes = Counter(groups)
    held: set[str] = set()
    count = 0
    for group in sorted(sizes, key=lambda value: rank(seed, purpose, value)):
        if count >= wanted or len(held) == len(sizes) - left:
            break
        if 2 * sizes[group] <= len(rows):
            held.add(group)
            count += sizes[group]
    kept, out = list[int](), list[int]()
    for place, group in enumerate(groups):
        (out if group in held else kept).append(place)
    return rows.select(kept), rows.select(out)
