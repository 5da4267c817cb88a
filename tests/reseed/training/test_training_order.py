"""The order of the rows: each once an epoch, another every epoch, the same on every rank and after a stop."""

from __future__ import annotations

import statistics
from pathlib import Path

import pytest
import torch
from accelerate.data_loader import prepare_data_loader, skip_first_batches
from tiny_rows import PROBLEM, SHORT, PowerError, Recorder, job, rows
from torch.utils.data import DataLoader, RandomSampler

from reseed.training.loop import train
from reseed.training.order import SeededOrder, row_order

LENGTHS = torch.randint(10, 500, (403,), generator=torch.Generator().manual_seed(0)).tolist()


def padding(order: list[int], micro: int) -> int:
    """Pad tokens of an epoch."""
    batches = [[LENGTHS[row] for row in order[n : n + micro]] for n in range(0, len(order), micro)]
    return sum(max(batch) * len(batch) - sum(batch) for batch in batches)


@pytest.mark.parametrize("group", [1, 2, 8, 64, 500])
def test_every_row_once_and_in_another_order_with_another_seed(group: int) -> None:
    order = row_order(LENGTHS, group, seed=3)
    assert sorted(order) == list(range(len(LENGTHS)))
    assert order == row_order(LENGTHS, group, seed=3)
    assert order != row_order(LENGTHS, group, seed=4)


def test_grouped_rows_are_padded_little() -> None:
    drawn, grouped = (padding(row_order(LENGTHS, group, seed=0), 8) for group in (1, 8))
    assert grouped < 0.25 * drawn


def test_what_ranks_take_at_once_is_of_like_length() -> None:
    """Two ranks take micro-batches of 4 in turns; neither waits for the other, and a step of 4 turns has all lengths."""
    order = row_order(LENGTHS, 2 * 4, seed=0)
    turns = [order[n : n + 8] for n in range(0, 400, 8)]
    spreads = [max(LENGTHS[row] for row in turn) - min(LENGTHS[row] for row in turn) for turn in turns]
    assert sorted(spreads)[len(spreads) // 2] < 60, "of 490"

    def spread_of_steps(order: list[int]) -> float:
        return statistics.pstdev(sum(LENGTHS[row] for row in order[n : n + 32]) / 32 for n in range(0, 384, 32))

    assert spread_of_steps(order) < 0.75 * spread_of_steps(row_order(LENGTHS, 32, seed=0)), "a step is no extreme"


def test_rows_meet_other_rows_in_the_next_epoch() -> None:
    def pairs(seed: int) -> set[frozenset[int]]:
        order = row_order(LENGTHS, 8, seed)
        groups = [order[n : n + 8] for n in range(0, 400, 8)]
        return {frozenset((a, b)) for group in groups for a in group for b in group if a < b}

    assert len(pairs(0) & pairs(1)) < 0.5 * len(pairs(0))


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("group", [1, 4])
def test_a_run_resumed_in_its_second_epoch_takes_the_rows_that_were_left(ranks: int, group: int) -> None:
    """Accelerate wraps it so deep that it can no longer tell it the epoch."""

    def epoch_of(rank: int, skip: int) -> list[int]:
        order = SeededOrder(LENGTHS[:48], group, seed=7, epoch=lambda: 1)
        loader = DataLoader(list(range(48)), batch_size=4, sampler=order)  # type: ignore[arg-type]
        prepared = prepare_data_loader(loader, num_processes=ranks, process_index=rank, put_on_device=False)
        prepared = skip_first_batches(prepared, skip) if skip else prepared
        prepared.set_epoch(1)
        return [int(row) for batch in prepared for row in batch]

    for rank in range(ranks):
        assert epoch_of(rank, 3) == epoch_of(rank, 0)[12:]
    assert sorted(row for rank in range(ranks) for row in epoch_of(rank, 0)) == list(range(48))


def test_a_stopped_grouped_run_goes_on_as_if_it_had_not(tiny_model: Path, tmp_path: Path) -> None:
    update = {"dropout": 0.1, "epochs": 2, "group_by_length": True, "batch_size": 4, "packing": False}
    what = job(tiny_model, settings=SHORT.model_copy(update=update), micro=2)
    some, few = rows(6, words=4) + rows(12, words=20)[6:], rows(16)[12:]
    seen = Recorder(tmp_path / "whole-seen")
    whole = train(what, PROBLEM, some, few, tmp_path / "whole", seen)
    assert whole is not None
    assert seen.steps == [2, 4, 6]
    for stop in (2, 4):  # in the first epoch and in the second
        place = tmp_path / str(stop)
        with pytest.raises(PowerError):
            train(what, PROBLEM, some, few, place / "work", Recorder(place / "seen", stop))
        checkpoint = place / "seen" / f"step-{stop}"
        resumed = train(what, PROBLEM, some, few, place / "again", Recorder(place / "again-seen"), checkpoint)
        assert resumed == whole


def test_rows_drawn_without_groups_come_as_accelerate_draws_them() -> None:
    for epoch in (0, 1):
        loader = DataLoader(list(range(48)), batch_size=4, sampler=RandomSampler(list(range(48))))
        prepared = prepare_data_loader(loader, put_on_device=False, use_seedable_sampler=True, data_seed=7)
        prepared.set_epoch(epoch)
        assert [int(row) for batch in prepared for row in batch] == row_order([1] * 48, 1, 7 + epoch)
