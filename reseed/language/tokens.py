"""Rows as token ids: a prompt, a completion and EOS, with the boundary known instead of searched for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from reseed.language.prompts import TEXT, PromptFormat, answer_ids, prompt_ids
from reseed.problems import Problem
from reseed.records import ReseedError, Row

IGNORED = -100


class TooLongError(ReseedError):
    """A row has too many tokens, however its source text is cut."""


@dataclass(frozen=True)
class Example:
    """One training row: token ids, and for each position the label or IGNORED."""

    ids: tuple[int, ...]
    labels: tuple[int, ...]
    prompt: int = 0  # how many of the ids are the prompt's


@dataclass(frozen=True)
class Encoded:
    """Examples in the order of their rows, with the numbers of rows that were shortened and dropped."""

    examples: list[Example]
    shortened: int
    dropped: int
    ids: list[str]  # of the rows that the examples were made of


def fit(problem: Problem, row: Row, tokenizer: Any, budget: int, style: PromptFormat = TEXT) -> tuple[Row, list[int]]:
    """Cut the row's source text until its prompt has at most `budget` tokens; return the row and the prompt's ids."""
    short, ids = row, prompt_ids(tokenizer, problem.prompt(row), style)
    keep = 1.0
    while len(ids) > budget:
        if keep == 0 or (keep <= 0.5 and short == row):  # the problem does not shorten its rows
            raise TooLongError(
                f"row {row['id']}: its prompt takes {len(ids)} tokens even with the source text cut away, "
                f"and {max(0, budget)} are left for it; raise training.max_tokens"
            )
        keep *= min(0.97, budget / len(ids))
        keep = keep if keep > 1e-4 else 0.0
        short = problem.shorten(row, keep)
        ids = prompt_ids(tokenizer, problem.prompt(short), style)
    return short, ids


def encode(
    problem: Problem,
    rows: Sequence[Row],
    tokenizer: Any,
    max_tokens: int,
    loss_on: str,
    style: PromptFormat = TEXT,
    too_long: str = "shorten",
) -> Encoded:
    """Rows as examples of at most `max_tokens` tokens. The last label of every row is EOS, and no answer is ever cut.

    A longer row's source text is cut; if `too_long` is `drop`, or nothing is left to cut, the row is dropped.
    """
    examples, kept, shortened, refused = [], [], 0, []
    for row in rows:
        answer = answer_ids(tokenizer, problem.prompt(row), problem.completion(row), style)
        try:
            short, prompt = fit(problem, row, tokenizer, max_tokens - len(answer), style)
            if short is not row and too_long == "drop":
                raise TooLongError(f"row {row['id']}: it is longer; raise it, or set training.too_long: shorten")
        except TooLongError as error:
            refused.append(error)
            continue
        shortened += short is not row
        ids = (*prompt, *answer)
        labels = (IGNORED,) * len(prompt) + tuple(answer) if loss_on == "completion" else ids
        examples.append(Example(ids, labels, len(prompt)))
        kept.append(row["id"])
    if refused and not examples:
        raise ReseedError(f"training.max_tokens: none of {len(rows)} rows fits into {max_tokens}; {refused[0]}")
    return Encoded(examples, shortened, len(refused), kept)
