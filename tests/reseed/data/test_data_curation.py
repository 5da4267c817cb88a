from __future__ import annotations

import pytest

from reseed.data.curation import curate
from reseed.problems import load_problem
from reseed.records import Finish, ReseedError, Row

PROBLEM = load_problem("prompt-recovery")


def row(number: int, answer: str | None = None) -> Row:
    return PROBLEM.row(f"text {number}", "Make it rhyme.", f"rhyme {number}" if answer is None else answer)


def test_every_reason_has_its_count() -> None:
    good = [row(0), row(1), row(2)]
    cut, long = [row(10), row(11)], [row(20)]
    empty, same = [row(30, ""), row(31, "  ")], [row(40, "text 40"), row(41, "text  41 ")]
    ends: dict[str, Finish] = {r["id"]: "length" for r in cut}
    ends |= {r["id"]: "too-long" for r in long}
    ends |= {r["id"]: "stop" for r in good}
    curated = curate([good[0], *cut, good[1], *empty, *same, *long, good[0], good[2], good[1]], ends, PROBLEM)
    assert curated.rows == good, "in their order, and the first of equal rows stays"
    assert curated.dropped == {"truncated": 2, "too-long": 1, "empty": 2, "unchanged": 2, "duplicate": 2}
    assert len(curated.rows) + sum(curated.dropped.values()) == 12, "nothing is dropped without a reason"


def test_row_counts_for_one_reason_only() -> None:
    twice_bad = row(1, "")
    assert curate([row(0), twice_bad], {twice_bad["id"]: "length"}, PROBLEM).dropped == {"truncated": 1}


def test_bad_row_twice_is_no_duplicate() -> None:
    assert curate([row(0), row(1, ""), row(1, "")], {}, PROBLEM).dropped == {"empty": 2}


def test_rows_of_a_source_have_no_finish() -> None:
    assert curate([row(0), row(1)], {}, PROBLEM).dropped == {}


def test_near_duplicates_stay() -> None:
    assert len(curate([row(0), row(0, "rhyme 0!")], {}, PROBLEM).rows) == 2


def test_nothing_left_is_an_error_with_the_counts() -> None:
    rows = [row(0, ""), row(1, ""), row(2)]
    with pytest.raises(ReseedError, match=r"no row is left of 3 \(empty 2, truncated 1\); look at the source, or"):
        curate(rows, {rows[2]["id"]: "length"}, PROBLEM)
    with pytest.raises(ReseedError, match=r"no row is left of 0 \(there were none\)"):
        curate([], {}, PROBLEM)
