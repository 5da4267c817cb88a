from __future__ import annotations

from dataclasses import dataclass

from reseed.data.statistics import dataset_stats
from reseed.problems import load_problem
from reseed.problems.prompt_recovery import QUESTION
from reseed.results import DatasetStats

PROBLEM = load_problem("prompt-recovery")
FIXED = len(f"Original text: Rewritten text: {QUESTION}".split())


@dataclass
class Encoded:
    input_ids: list[list[int]]


def by_words(texts: list[str]) -> Encoded:
    """A tokenizer of words, called as transformers' are."""
    return Encoded([[0] * len(text.split()) for text in texts])


def test_table_of_iteration_13() -> None:
    rows = [
        PROBLEM.row("one", "Rhyme.", "uno"),
        PROBLEM.row("one two", "Rhyme.", "uno due"),
        PROBLEM.row("one two three", "Sing it.", "uno due tre"),
    ]
    stats = dataset_stats(rows, PROBLEM, by_words, {"empty": 2})
    assert stats == DatasetStats(n=3, n_prompts=2, ratio=0.6667, median_tokens=FIXED + 5, dropped={"empty": 2})


def test_median_of_an_even_number_of_rows() -> None:
    rows = [PROBLEM.row("one", "Rhyme.", "uno"), PROBLEM.row("one two", "Rhyme.", "uno due")]
    assert dataset_stats(rows, PROBLEM, by_words, {}).median_tokens == FIXED + 4.0
