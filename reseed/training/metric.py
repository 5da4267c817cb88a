"""The problem's own metric while a member is trained: greedy answers to a few validation rows, scored."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from reseed.language.prompts import PromptFormat, prompt_format
from reseed.language.tokens import TooLongError, fit
from reseed.language.writing import write
from reseed.problems import Problem, load_problem
from reseed.records import Row, Sampling
from reseed.training.zero.sharded import unsharded

if TYPE_CHECKING:
    from reseed.problems import Embed
    from reseed.training.job import Judge, TrainJob


def fitting_prompts(
    problem: Problem, rows: Sequence[Row], tokenizer: Any, budget: int, style: PromptFormat
) -> list[tuple[str, list[int]]]:
    """Row ids and prompts as token ids. A row that cannot be cut to fit is left out: its answer counts as empty."""
    fitting = []
    for row in rows:
        with suppress(TooLongError):
            fitting.append((row["id"], fit(problem, row, tokenizer, budget, style)[1]))
    return fitting


class ValidationMetric:
    """The mean score of the first validation rows by id, a fixed choice whatever their order in the partition."""

    def __init__(self, problem: Problem, rows: Sequence[Row], tokenizer: Any, job: TrainJob, judge: Judge) -> None:
        self.problem, self.tokenizer, self.judge, self.size = problem, tokenizer, judge, job.micro_batch_size
        self.scores = problem.scores if judge.problem is None else load_problem(judge.problem).scores
        self.rows = sorted(rows, key=lambda row: row["id"])[: job.settings.metric_rows]
        style = prompt_format(job.settings)
        budget = job.settings.max_tokens - judge.max_new_tokens
        self.prompts = sorted(
            fitting_prompts(problem, self.rows, tokenizer, budget, style), key=lambda pair: len(pair[1])
        )
        self._embed: Embed | None = None

    def measure(self, model: Any, rank: int, world: int) -> float:
        """Have every rank answer its share of the rows; return the metric, the same on all ranks."""
        import torch

        batches = [self.prompts[i : i + self.size] for i in range(0, len(self.prompts), self.size)]
        answers: dict[str, str] = {}
        was_training = model.training
        model.eval()
        for turn in range(-(-len(batches) // world)):
            # a rank without rows answers some again: a sharded model gathers its weights in every forward pass
            answers |= self._answered(model, batches[min(turn * world + rank, len(batches) - 1)])
        model.train(was_training)
        if world == 1:
            return self._scored(answers)
        gathered: list[dict[str, str] | None] = [None] * world
        torch.distributed.all_gather_object(gathered, answers)
        value = [self._scored({k: v for part in gathered for k, v in (part or {}).items()}) if rank == 0 else 0.0]
        torch.distributed.broadcast_object_list(value, src=0)
        return value[0]

    def _answered(self, model: Any, batch: Sequence[tuple[str, list[int]]]) -> dict[str, str]:
        written = write(model, self.tokenizer, [ids for _, ids in batch], Sampling(self.judge.max_new_tokens))
        texts = [self.tokenizer.decode(one.tokens, skip_special_tokens=True) for one in written]
        return {name: self.problem.parse(text) for (name, _), text in zip(batch, texts, strict=True)}

    def _scored(self, answers: dict[str, str]) -> float:
        from reseed.language.embedding import load_embedder

        if self._embed is None:
            with unsharded():
                self._embed = load_embedder(self.judge.embedder)
        return float(self.scores([answers.get(row["id"], "") for row in self.rows], self.rows, self._embed).mean())
