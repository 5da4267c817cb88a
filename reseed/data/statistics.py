"""The dataset table of Iteration 13: how many rows, how many distinct prompts, how long."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from reseed.problems import Problem
from reseed.records import Row
from reseed.results import DatasetStats

CHUNK = 1000  # rows tokenised at once: all tokens of many rows together take gigabytes


def dataset_stats(rows: Sequence[Row], problem: Problem, tokenizer: Any, dropped: Mapping[str, int]) -> DatasetStats:
    """`n`, `n_prompts` (distinct), `ratio` = n_prompts / n, and the median number of tokens of a row's training text."""
    prompts = {row[problem.prompt_column] for row in rows}
    lengths: list[int] = []
    for some in range(0, len(rows), CHUNK):
        texts = [problem.prompt(row) + problem.completion(row) for row in rows[some : some + CHUNK]]
        lengths += [len(ids) for ids in tokenizer(texts).input_ids]
    return DatasetStats(
        len(rows), len(prompts), round(len(prompts) / len(rows), 4), float(median(lengths)), dict(dropped)
    )
