from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from reseed.problems import Problem, load_problem
from reseed.records import Row

PROBLEM = load_problem("prompt-recovery")


def row(original: str = "The cat sat.", rewritten: str = "A cat was sitting.", prompt: str = "Make it passive.") -> Row:
    return PROBLEM.row(original, prompt, rewritten)


def one_hot(texts: Sequence[str]) -> NDArray[np.float32]:
    """Unit vectors: equal texts are equal, different ones of these are orthogonal."""
    known = ["Make it passive.", "Make it rhyme.", "."]
    return np.eye(len(known), dtype=np.float32)[[known.index(text) for text in texts]]


def slanted(texts: Sequence[str]) -> NDArray[np.float32]:
    """Everything but the truth is at a cosine of 0.5 to it."""
    return np.array(
        [[1, 0] if text == "Make it passive." else [0.5, np.sqrt(0.75)] for text in texts], dtype=np.float32
    )


def test_it_is_a_problem() -> None:
    assert isinstance(PROBLEM, Problem)
    assert (PROBLEM.generates, PROBLEM.votes) == (True, False)
    assert (PROBLEM.name, PROBLEM.metric, PROBLEM.higher_is_better) == ("prompt-recovery", "scs", True)
    assert PROBLEM.prompt_column in PROBLEM.columns


@pytest.mark.parametrize(
    ("instruction", "asked"),
    [
        ("Make it rhyme.", 'Make it rhyme: """Once."""'),
        ("Make it rhyme", 'Make it rhyme: """Once."""'),
        ("Wait for it...", 'Wait for it..: """Once."""'),  # the final full stop, one
        ("Make it rhyme!", 'Make it rhyme!: """Once."""'),
    ],
)
def test_request_is_the_contest_hosts(instruction: str, asked: str) -> None:
    assert PROBLEM.request("Once.", instruction) == asked


def test_request_leaves_the_text_as_it_is() -> None:
    assert PROBLEM.request(' two\nlines "quoted". ', "Go.") == 'Go: """ two\nlines "quoted". """'


def test_id_is_the_contents_digest() -> None:
    assert row()["id"] == row(rewritten="  A cat was sitting.\n")["id"]
    changed = [row(original="x"), row(rewritten="x"), row(prompt="x")]
    assert len({r["id"] for r in [row(), *changed]}) == 4


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (row(), None),
        (row(original=" \n"), "empty"),
        (row(rewritten=""), "empty"),
        (row(prompt="\t"), "empty"),
        (row(rewritten="The cat sat."), "unchanged"),
        (row(rewritten="The\n  cat sat. "), "unchanged"),
        (row(rewritten="the cat sat."), None),
    ],
)
def test_unfit_row_is_refused_with_a_reason(made: Row, reason: str | None) -> None:
    assert PROBLEM.refuse(made) == reason


def test_prompt_holds_both_texts_and_not_the_answer() -> None:
    text = PROBLEM.prompt(row())
    assert "The cat sat." in text
    assert "A cat was sitting." in text
    assert "passive" not in text
    assert text.endswith(":")
    assert PROBLEM.completion(row()) == " Make it passive."


@pytest.mark.parametrize("keep", [1.0, 0.5, 0.01, 0.0])
def test_shorten_cuts_the_texts_and_never_the_prompt(keep: float) -> None:
    long = row(original="one two three four " * 10, rewritten="five six seven eight " * 10)
    short = PROBLEM.shorten(long, keep)
    assert short["rewrite_prompt"] == long["rewrite_prompt"]
    assert short["id"] == long["id"], "it still is the same row"
    for column in ("original_text", "rewritten_text"):
        words = short[column].split()
        assert words == long[column].split()[: len(words)]
        assert len(words) == max(1, int(40 * keep))
    assert PROBLEM.completion(short) == PROBLEM.completion(long)


WORDS = st.text(st.characters(codec="utf-8"), max_size=60)


@settings(max_examples=50, deadline=None)
@given(WORDS, WORDS, WORDS, st.floats(0, 1))
def test_shorten_and_parse_take_any_text(original: str, rewritten: str, prompt: str, keep: float) -> None:
    made = row(original, rewritten, prompt)
    short = PROBLEM.shorten(made, keep)
    assert short["rewrite_prompt"] == prompt
    assert len(PROBLEM.prompt(short)) <= len(PROBLEM.prompt(made))
    assert "\n" not in PROBLEM.parse(rewritten)


@pytest.mark.parametrize(
    ("written", "answer"),
    [
        (" Make it rhyme.", "Make it rhyme."),
        ('"Make it rhyme."', "Make it rhyme."),
        ("“Make it rhyme.”", "Make it rhyme."),
        ("' Make it rhyme. '", "Make it rhyme."),
        ("\n\n  Make it rhyme.\nOriginal text:\nmore", "Make it rhyme."),
        ('""\n"Make it rhyme."', "Make it rhyme."),
        ('Use the word "sea" twice', 'Use the word "sea" twice'),
        ("", ""),
        (" \n\t\n", ""),
        ('"', ""),
    ],
)
def test_answer_is_the_first_line_that_says_something(written: str, answer: str) -> None:
    assert PROBLEM.parse(written) == answer


def test_blend_is_the_answers_one_after_the_other_each_once() -> None:
    assert PROBLEM.blend(["Rhyme.", "Sing.", "Rhyme."]) == "Rhyme. Sing."
    assert PROBLEM.blend(["", "Sing."]) == "Sing."
    assert PROBLEM.blend(["", ""]) == ""
    assert PROBLEM.blend(["Rhyme."]) == "Rhyme."


def test_scores_are_cubed_cosines_in_full_precision() -> None:
    rows = [row(), row(), row()]
    scores = PROBLEM.scores(["Make it passive.", "Make it rhyme.", ""], rows, one_hot)
    assert scores.tolist() == [1.0, 0.0, 0.0]
    assert scores.dtype == np.float64
    assert PROBLEM.scores(["Make it rhyme."], [row()], slanted).tolist() == pytest.approx([0.125])


def test_blank_answer_is_scored_as_a_lone_full_stop() -> None:
    assert PROBLEM.scores([""], [row(prompt=".")], one_hot).tolist() == [1.0]
