from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reseed.data.partition import Partition, hold_out
from reseed.data.partition import partition as partition_of
from reseed.data.rows import rows_of
from reseed.files import digest
from reseed.records import ReseedError, Row
from reseed.settings import DataSettings, Holdout

ROOT = Path(__file__).resolve().parents[3]


def made(count: int, prompts: int = 23, texts: int = 17) -> list[Row]:
    """Rows over so many prompts and texts."""
    return [
        {
            "id": digest([number], 16),
            "original_text": f"text {number % texts}",
            "rewritten_text": f"r {number}",
            "rewrite_prompt": f"prompt {number % prompts}",
        }
        for number in range(count)
    ]


def how(
    validation: float = 0.1, test: float = 0.2, seed: int = 7, limit: int | None = None,
    group_by: str = "rewrite_prompt", test_by: str = "rewrite_prompt",
) -> DataSettings:  # fmt: skip
    return DataSettings.model_validate(
        {
            "validation": {"fraction": validation, "group_by": group_by},
            "test": {"fraction": test, "group_by": test_by},
            "seed": seed,
            "limit": limit,
        }
    )


def partition(rows: list[Row], settings: DataSettings) -> Partition:
    return partition_of(rows_of(rows), settings)


def ids(parts: Partition) -> list[list[str]]:
    return [[row["id"] for row in part] for part in (parts.train, parts.validation, parts.test)]


def groups(rows: Iterable[Row], column: str = "rewrite_prompt") -> set[str]:
    return {row[column] for row in rows}


def test_golden_value() -> None:
    """The same rows, settings and seed must be split alike on every machine, now and later."""
    told = [(len(part), digest(sorted(part), 16)) for part in ids(partition(made(120), how(limit=100)))]
    assert told == [(64, "dc59f49633b97203"), (14, "4013b09f522ac694"), (22, "8bb265a73229e1cd")]


def test_partition_is_the_same_in_every_process() -> None:
    code = "import json, test_data_partition as t; print(json.dumps(t.ids(t.partition(t.made(120), t.how(limit=100)))))"
    path = os.pathsep.join([str(ROOT), str(Path(__file__).parent)])
    told = [
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": path},
            check=True, capture_output=True, text=True,
        ).stdout
        for seed in ("1", "2")
    ]  # fmt: skip
    assert [json.loads(text) for text in told] == [ids(partition(made(120), how(limit=100)))] * 2


def test_no_prompt_stands_on_two_sides_and_sizes_are_near_the_fractions() -> None:
    for seed in range(10):
        parts = partition(made(1000, prompts=130), how(seed=seed))
        train, validation, test = groups(parts.train), groups(parts.validation), groups(parts.test)
        assert not train & validation
        assert not train & test
        assert not validation & test
        assert 200 <= len(parts.test) <= 220
        assert 100 <= len(parts.validation) <= 110
        assert len(parts.train) + len(parts.validation) + len(parts.test) == 1000


def test_columns_of_the_holdouts_may_differ() -> None:
    parts = partition(made(400, texts=31), how(group_by="original_text"))
    assert not groups(parts.test) & groups([*parts.train, *parts.validation])
    assert not groups(parts.validation, "original_text") & groups(parts.train, "original_text")


def test_rows_can_be_their_own_groups() -> None:
    assert [len(part) for part in ids(partition(made(50), how(group_by="id", test_by="id")))] == [35, 5, 10]


def test_one_huge_group_is_trained_on() -> None:
    rows = made(900, prompts=1) + [{**row, "id": f"x{row['id']}"} for row in made(300, prompts=60)][1:]
    for seed in range(10):
        parts = partition(rows, how(seed=seed))
        assert "prompt 0" in groups(parts.train)
        assert 240 <= len(parts.test) <= 264


@pytest.mark.parametrize("fraction", [0.1, 0.2])
def test_large_group_is_held_out_as_often_as_a_small_one(fraction: float) -> None:
    """Of 80 groups of one row and 4 of twenty, over 400 seeds.

    Passing over groups that would overshoot holds out a small one by 20 % of the seeds and a large one by none, if a tenth
    of the rows is wanted; by 26 % and 14 % for a fifth. Taking them as they come gives 13 and 14 %, and 22 and 23 %.
    """
    sizes = [1] * 80 + [20] * 4
    rows = [
        {"id": f"{group}-{number}", "group": str(group)} for group, size in enumerate(sizes) for number in range(size)
    ]
    settings = Holdout(fraction=fraction, group_by="group")
    times: Counter[int] = Counter()
    for seed in range(400):
        _, held = hold_out(rows_of(rows), settings, round(fraction * len(rows)), seed, "test")
        times.update(sizes[int(group)] for group in groups(held, "group"))
    small, large = (times[size] / sizes.count(size) / 400 for size in (1, 20))
    assert large == pytest.approx(small, rel=0.2)


def test_group_too_large_for_its_part_is_taken_when_all_are() -> None:
    parts = partition(made(40, prompts=4), how())
    assert [len(part) for part in ids(parts)] == [20, 10, 10]


def test_order_of_the_rows_decides_nothing_but_the_order_in_the_parts() -> None:
    rows, settings = made(200), how(limit=150)
    straight, turned = ids(partition(rows, settings)), ids(partition(rows[::-1], settings))
    assert [part[::-1] for part in turned] == straight
    order = [row["id"] for row in rows]
    assert all(part == sorted(part, key=order.index) for part in straight)


def test_seed_decides() -> None:
    assert ids(partition(made(200), how(seed=1))) != ids(partition(made(200), how(seed=2)))
    assert ids(partition(made(200), how(seed=1, limit=100))) != ids(partition(made(200), how(seed=2, limit=100)))


def test_limit_draws_from_everywhere() -> None:
    parts = partition(made(1000), how(limit=100))
    drawn = {row_id for part in ids(parts) for row_id in part}
    assert len(drawn) == 100
    late = [row["id"] for row in made(1000)[500:]]
    assert 30 < len(drawn.intersection(late)) < 70
    assert ids(partition(made(100), how(limit=1000))) == ids(partition(made(100), how()))


def test_wider_test_holds_the_narrower_one() -> None:
    """Groups are held out in one fixed order, so a larger fraction adds to the test and takes nothing from it."""
    narrow, wide = (partition(made(230, prompts=230), how(test=test)) for test in (0.1, 0.3))
    assert set(ids(narrow)[2]) < set(ids(wide)[2])


@pytest.mark.parametrize(("key", "settings"), [("test", how(test_by="prompt")), ("validation", how(group_by="prompt"))])
def test_missing_column_is_answered_with_the_nearest(key: str, settings: DataSettings) -> None:
    with pytest.raises(ReseedError) as caught:
        partition(made(30), settings)
    message = str(caught.value)
    assert message.startswith(f"data.{key}.group_by: no column 'prompt' (did you mean 'rewrite_prompt'?)")
    assert "the rows have original_text, rewritten_text, rewrite_prompt" in message


@pytest.mark.parametrize(
    ("rows", "settings", "empty"),
    [
        (made(100, prompts=1), how(), "validation and test"),
        (made(100, prompts=2), how(), "test"),
        (made(2), how(), "validation and test"),
        (made(4), how(), "validation"),
        (made(1), how(), "validation and test"),
    ],
)
def test_too_few_groups_is_told(rows: list[Row], settings: DataSettings, empty: str) -> None:
    with pytest.raises(ReseedError) as caught:
        partition(rows, settings)
    message = str(caught.value)
    count = len(groups(rows))
    assert message.startswith(
        f"partition: no row for {empty} out of {len(rows)} rows with {count} different rewrite_prompt"
    )
    assert "data.test.fraction (0.2)" in message
    assert "group by another column" in message


SIZES = st.lists(st.integers(1, 4), min_size=8, max_size=40)
FRACTIONS = st.floats(0.13, 0.3)  # of 8 rows or more: at least one row for every part


@settings(max_examples=80, deadline=None)
@given(SIZES, FRACTIONS, FRACTIONS, st.integers(0, 2**32), st.none() | st.integers(60, 90))
def test_parts_are_disjoint_and_complete(
    sizes: list[int], validation: float, test: float, seed: int, limit: int | None
) -> None:
    rows = [
        {"id": f"{group}-{number}", "rewrite_prompt": f"prompt {group}"}
        for group, size in enumerate(sizes)
        for number in range(size)
    ]
    parts = partition(rows, how(validation, test, seed, limit))
    everything = [row_id for part in ids(parts) for row_id in part]
    assert len(everything) == len(set(everything)) == min(len(rows), limit or len(rows))
    assert set(everything) <= {row["id"] for row in rows}
    sides = Counter(prompt for part in (parts.train, parts.validation, parts.test) for prompt in groups(part))
    assert set(sides.values()) == {1}
    wanted = round(test * len(everything))
    left = Counter(row["rewrite_prompt"] for part in (parts.train, parts.validation, parts.test) for row in part)
    assert len(parts.test) <= max(wanted - 1, 0) + max(left.values())
    assert len(parts.test) >= min(wanted, len(everything) - max(left.values()))


@pytest.mark.parametrize("sizes", [(1, 1, 28), (1, 1, 1, 27)])
def test_three_groups_are_enough_for_three_parts(sizes: tuple[int, ...]) -> None:
    """The small ones do not fill the test; it leaves one for the validation."""
    rows = [
        {"id": f"{prompt}-{number}", "rewrite_prompt": f"prompt {prompt}"}
        for prompt, size in enumerate(sizes) for number in range(size)
    ]  # fmt: skip
    for seed in range(20):
        assert all(ids(partition(rows, how(seed=seed))))
