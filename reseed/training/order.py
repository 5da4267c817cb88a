"""In which order an epoch takes the rows: a function of the seed and the epoch, the same on every rank and on resuming."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch

POOLS = 4  # an epoch is sorted in at least so many parts, so that rows meet other rows in the next epoch
REACH = 50  # and in parts of at most so many groups


class SeededOrder(torch.utils.data.Sampler[int]):
    """A sampler that asks for its epoch when it begins, rather than being told: accelerate tells it to no sampler but its
    own once it has wrapped it for several ranks and a resumed epoch, and the first epoch's order would come again.

    With groups of one row the order is that of accelerate's sampler.
    """

    def __init__(self, lengths: Sequence[int], group: int, seed: int, epoch: Callable[[], int]) -> None:
        self.lengths, self.group, self.seed, self.epoch = lengths, group, seed, epoch

    def __iter__(self) -> Iterator[int]:
        return iter(row_order(self.lengths, self.group, self.seed + self.epoch()))

    def __len__(self) -> int:
        return len(self.lengths)


def row_order(lengths: Sequence[int], group: int, seed: int) -> list[int]:
    """Every row once. Each `group` of rows that follow one another, the last rest apart, is of like length.

    Rows are drawn, sorted by length within parts of the drawn order, cut into groups, and the groups are drawn: a group
    is what all ranks take at once, so that none waits for another, and a step that accumulates has rows of all lengths.
    """
    generator = torch.Generator().manual_seed(seed)
    drawn: list[int] = torch.randperm(len(lengths), generator=generator).tolist()
    if group == 1:
        return drawn
    whole = len(drawn) // group * group
    part = group * max(1, min(REACH, whole // (group * POOLS)))
    groups = []
    for start in range(0, whole, part):
        pool = sorted(drawn[start : min(start + part, whole)], key=lambda row: lengths[row])
        groups += [pool[n : n + group] for n in range(0, len(pool), group)]
    mixed = torch.randperm(len(groups), generator=generator).tolist()
    return [row for n in mixed for row in groups[n]] + drawn[whole:]
