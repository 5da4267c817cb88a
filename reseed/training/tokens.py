"""Rows to token ids: a prompt, a completion, and EOS, with the boundary known rather than searched for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from reseed.problems import Problem
from reseed.records import ReseedError, Row

if TYPE_CHECKING:
    import torch

IGNORED = -100


@dataclass(frozen=True)
class Example:
    """One training row: token ids and, at each position, the label or IGNORED. Both have the same length."""

    ids: tuple[int, ...]
    labels: tuple[int, ...]


@dataclass(frozen=True)
class Encoded:
    """Examples in the order of their rows, and how many rows had their source text cut."""

    examples: list[Example]
    shortened: int


def prompt_ids(tokenizer: Any, text: str) -> list[int]:
    """A prompt's ids, with one BOS where the model has one."""
    return list(tokenizer(text, add_special_tokens=True).input_ids)


def fit(problem: Problem, row: Row, tokenizer: Any, budget: int) -> tuple[Row, list[int]]:
    """The row, cut in its source text until its prompt takes at most `budget` tokens, and the prompt's ids."""
    short, ids = row, prompt_ids(tokenizer, problem.prompt(row))
    keep = 1.0
    while len(ids) > budget:
        if keep == 0:
            raise ReseedError(
                f"row {row['id']}: its prompt takes {len(ids)} tokens even with the source text cut away, "
                f"and {budget} are left for it; raise training.max_tokens"
            )
        keep *= min(0.97, budget / len(ids))
        keep = keep if keep > 1e-4 else 0.0
        short = problem.shorten(row, keep)
        ids = prompt_ids(tokenizer, problem.prompt(short))
    return short, ids


def encode(problem: Problem, rows: Sequence[Row], tokenizer: Any, max_tokens: int, loss_on: str) -> Encoded:
    """Examples of at most `max_tokens` tokens. The last label of every row is EOS; a source too long is cut, counted."""
    examples, shortened = [], 0
    for row in rows:
        answer = [*tokenizer(problem.completion(row), add_special_tokens=False).input_ids, tokenizer.eos_token_id]
        short, prompt = fit(problem, row, tokenizer, max_tokens - len(answer))
        shortened += short is not row
        ids = tuple(prompt + answer)
        labels = ids if loss_on == "all" else (IGNORED,) * len(prompt) + tuple(answer)
        examples.append(Example(ids, labels))
    return Encoded(examples, shortened)


def collate(examples: Sequence[Example], pad: int) -> dict[str, torch.Tensor]:
    """Right-padded `input_ids`, `attention_mask`, `labels`, each int64 of shape (rows, longest)."""
    import torch

    longest = max(len(example.ids) for example in examples)

    def padded(values: tuple[int, ...], fill: int) -> list[int]:
        return [*values, *[fill] * (longest - len(values))]

    return {
        "input_ids": torch.tensor([padded(e.ids, pad) for e in examples]),
        "attention_mask": torch.tensor([padded((1,) * len(e.ids), 0) for e in examples]),
        "labels": torch.tensor([padded(e.labels, IGNORED) for e in examples]),
    }
