"""The order of rows in an epoch: a function of seed and epoch, so it is the same on every rank and after resuming."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch

POOLS = 4  # an epoch is sorted in at least this many parts, so that rows meet others in the next epoch
REACH = 50  # most groups in such a part


class SeededOrder(torch.utils.data.Sampler[int]):
    """A sampler that asks for the epoch instead of being told.

    After resuming on several ranks, accelerate sets the epoch of its own sampler only, and the first epoch's order would
    be repeated. With groups of one row the order is that of accelerate's sampler.
    """

    def __init__(self, lengths: Sequence[int], group: int, seed: int, epoch: Callable[[], int]) -> None:
        self.lengths, self.group, self.seed, self.epoch = lengths, group, seed, epoch

    def __iter__(self) -> Iterator[int]:
        return iter(row_order(self.lengths, self.group, self.seed + self.epoch()))

    def __len__(self) -> int:
        return len(self.lengths)


def row_order(lengths: Sequence[int], group: int, seed: int) -> list[int]:
    """Every row once. Each `group` of consecutive rows, except for the rest at the end, is of similar length.

    Rows are shuffled, sorted by length within parts of that order, cut into groups, and the groups shuffled. A group is
    what all ranks take at once, so none waits for another; a step that accumulates still has rows of all lengths.
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
