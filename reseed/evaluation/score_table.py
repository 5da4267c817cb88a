"""The score of every held-out row for everything that answered it: from this, comparisons are made again without a model."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from reseed.evaluation.statistics import Side, ensemble_side, recipe_side
from reseed.records import Member, ReseedError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Scores = NDArray[np.float64]

FILE = "scores.parquet"
RUN = re.compile(r"(?P<seed>\d+)(\.(?P<order>\d+))?")  # as `Member.run` names it
UNTRAINED = "untrained"
BEST_CONSTANT = "best constant"  # cross-fitted; a fixed one is `constant/TEXT`


def member_column(member: Member) -> str:
    """A member's column."""
    return f"member/{member.variant}/{member.run}"


def without_column(member: Member) -> str:
    """The column of a variant's ensemble without one member."""
    return f"without/{member.variant}/{member.run}"


def ensemble_column(variant: str) -> str:
    """The column of a variant's ensemble."""
    return f"ensemble/{variant}"


def constant_column(text: str) -> str:
    """The column of a fixed answer."""
    return f"constant/{text}"


def crossing(members: Sequence[Member]) -> tuple[int, int] | None:
    """How many initialisations and orders a variant's members cross; None where seeds are not split."""
    if any(member.order is None for member in members):
        return None
    shape = len({member.seed for member in members}), len({member.order for member in members})
    if shape[0] * shape[1] != len(members):
        raise ReseedError(
            f"variant '{members[0].variant}': {len(members)} members of {shape[0]} initialisations and {shape[1]} orders; "
            "wanted each with each"
        )
    return shape


@dataclass(frozen=True)
class ScoreTable:
    """The rows' ids and groups, and a column of n scores for each member, ensemble and constant."""

    ids: tuple[str, ...]
    groups: tuple[str, ...]
    columns: Mapping[str, Scores]

    def members(self, variant: str) -> tuple[Member, ...]:
        """A variant's members by their seeds."""
        begin = f"member/{variant}/"
        found = [RUN.fullmatch(name.removeprefix(begin)) for name in self.columns if name.startswith(begin)]
        runs = [(int(one["seed"]), int(one["order"]) if one["order"] else None) for one in found if one is not None]
        return tuple(sorted(Member(variant, seed, order) for seed, order in runs))

    def variants(self) -> list[str]:
        """The variants that have members."""
        begin = "member/"
        names = [name.removeprefix(begin).rpartition("/")[0] for name in self.columns if name.startswith(begin)]
        return list(dict.fromkeys(names))

    def recipe(self, variant: str) -> Side:
        """What one more run of a variant would give."""
        import numpy as np

        members = self.members(variant)
        return recipe_side(np.stack([self.columns[member_column(one)] for one in members]), crossing(members))

    def is_crossed(self, variant: str) -> bool:
        """True where a variant's seeds are split into initialisation and order."""
        return crossing(self.members(variant)) is not None

    def ensemble(self, variant: str) -> Side:
        """A variant's ensemble. Raises ReseedError for one of split seeds: without one of several members that share an
        initialisation it hardly changes, however much other initialisations would change it."""
        import numpy as np

        members, blend = self.members(variant), self.columns[ensemble_column(variant)]
        if self.is_crossed(variant):
            raise ReseedError(
                f"variant '{variant}': its seeds are split, and what other seeds would make of its ensemble is not known; "
                "compare the variant itself, or run it with a list, --set seeds=[0,1,2]"
            )
        if len(members) < 2:  # one seed, which says nothing of others
            return recipe_side(blend[None])
        return ensemble_side(blend, np.stack([self.columns[without_column(one)] for one in members]))

    def fixed(self, column: str) -> Side:
        """One model or constant that was not drawn from many."""
        return Side(self.columns[column])


def save_scores(table: ScoreTable, path: Path) -> None:
    """Write `id`, `group` and a column of numbers for each that answered."""
    import pyarrow
    from pyarrow import parquet

    names = ["id", "group", *table.columns]
    columns = [pyarrow.array(table.ids), pyarrow.array(table.groups), *map(pyarrow.array, table.columns.values())]
    parquet.write_table(pyarrow.Table.from_arrays(columns, names=names), path)


def load_scores(folder: Path, whose: str) -> ScoreTable:
    """Read what `save_scores` wrote into a result's folder. Raises ReseedError where there is none."""
    from pyarrow import parquet

    if not (folder / FILE).is_file():
        raise ReseedError(f"{whose}: it has no {FILE}, as an older version scored it; run its recipe again")
    table = parquet.read_table(folder / FILE)
    numbers = {name: table[name].to_numpy() for name in table.column_names if name not in ("id", "group")}
    return ScoreTable(tuple(table["id"].to_pylist()), tuple(table["group"].to_pylist()), numbers)
