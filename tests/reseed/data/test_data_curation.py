from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from reseed.data.curation import curate
from reseed.problems import load_problem
from reseed.records import ReseedError, Row

PROBLEM = load_problem("prompt-recovery")


def row(number: int, answer: str | None = None) -> Row:
    return PROBLEM.row(f"text {number}", "Make it rhyme.", f"rhyme {number}" if answer is None else answer)


def curated(*rows: Row) -> tuple[list[Row], dict[str, int]]:
    """What is kept, and what is dropped."""
    dropped: Counter[str] = Counter()
    return list(curate(rows, PROBLEM, dropped)), dict(dropped)


def ending(finish: str, row: Row) -> Row:
    return {**row, "finish": finish, "tokens": "3"}


def test_every_reason_has_its_count() -> None:
    good = [row(0), row(1), row(2)]
    cut, long = [ending("length", row(10)), ending("length", row(11))], [ending("too-long", row(20))]
    empty, same = [row(30, ""), row(31, "  ")], [row(40, "text 40"), row(41, "text  41 ")]
    said = [ending("stop", one) for one in good]
    kept, dropped = curated(said[0], *cut, said[1], *empty, *same, *long, good[0], said[2], good[1])
    assert kept == good, "in their order, without how they ended, and the first of equal rows stays"
    assert dropped == {"truncated": 2, "too-long": 1, "empty": 2, "unchanged": 2, "duplicate": 2}
    assert len(kept) + sum(dropped.values()) == 12, "nothing is dropped without a reason"


def test_row_counts_for_one_reason_only() -> None:
    assert curated(row(0), ending("length", row(1, "")))[1] == {"truncated": 1}


def test_bad_row_twice_is_no_duplicate() -> None:
    assert curated(row(0), row(1, ""), row(1, ""))[1] == {"empty": 2}


def test_rows_of_a_source_have_no_finish() -> None:
    assert curated(row(0), row(1))[1] == {}


def test_near_duplicates_stay() -> None:
    assert len(curated(row(0), row(0, "rhyme 0!"))[0]) == 2


def test_a_problem_s_own_column_is_not_taken_for_how_a_row_ended() -> None:
    problem = replace(PROBLEM, columns=(*PROBLEM.columns, "finish"))
    one = {**row(0), "finish": "length"}
    assert list(curate([dict(one)], problem, Counter())) == [one]


def test_nothing_left_is_an_error_with_the_counts() -> None:
    with pytest.raises(ReseedError, match=r"no row is left of 3 \(empty 2, truncated 1\); look at the source, or"):
        curated(row(0, ""), row(1, ""), ending("length", row(2)))
    with pytest.raises(ReseedError, match=r"no row is left of 0 \(there were none\)"):
        curated()
