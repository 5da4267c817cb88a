"""The engine on plain transformers: batches of prompts of similar length, padded on the left."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from reseed.language.prompts import TEXT, PromptFormat, chat_text, prompt_text
from reseed.language.tokens import fit
from reseed.language.writing import Written, write
from reseed.models.adapters import attach_adapter
from reseed.models.cache import materialise
from reseed.models.loading import load_model
from reseed.models.names import ModelSpec
from reseed.models.tokenizers import load_tokenizer
from reseed.problems import Problem
from reseed.records import Generation, Prompt, Row, Sampling


def open_engine(spec: ModelSpec, batch_size: int) -> TransformersEngine:
    """The engine of that name."""
    return TransformersEngine(spec, batch_size)


class TransformersEngine:
    """One model in memory, with the adapter that it was last asked for."""

    def __init__(self, spec: ModelSpec, batch_size: int) -> None:
        folder = materialise(spec)
        self.tokenizer = load_tokenizer(folder)
        self.model = load_model(folder, spec).eval()
        self.batch_size = batch_size
        self.adapter: Path | None = None
        config = self.model.config.get_text_config()  # of the part that reads text, if a model reads images too
        self.context = int(getattr(config, "max_position_embeddings", sys.maxsize))

    def chat(self, prompt: Prompt) -> Prompt:
        """The prompt as a user's turn in the model's own chat format, unchanged if the model has none."""
        if self.tokenizer.chat_template is None:
            return prompt
        return replace(prompt, text=chat_text(self.tokenizer, prompt.text), templated=True)

    def question(
        self, problem: Problem, row: Row, sampling: Sampling, max_tokens: int, style: PromptFormat = TEXT
    ) -> Prompt:
        """The student's prompt for a row, formatted and cut as in training, with room for the answer."""
        short, _ = fit(problem, row, self.tokenizer, max_tokens - sampling.max_new_tokens, style)
        return Prompt(row["id"], prompt_text(self.tokenizer, problem.prompt(short), style), style.templated)

    def generate(
        self, prompts: Sequence[Prompt], sampling: Sampling, seed: int, adapter: Path | None = None
    ) -> list[Generation]:
        """Answers in the order of the prompts.

        A prompt too long for the model's context gets an empty answer with finish `too-long`; the others are answered.
        """
        model = self._adapted(adapter)
        ids = {p.id: self.tokenizer(p.text, add_special_tokens=not p.templated).input_ids for p in prompts}
        fits = [p for p in prompts if len(ids[p.id]) + sampling.max_new_tokens <= self.context]
        answers = {p.id: Generation(p.id, "", "too-long", 0) for p in prompts}
        fits.sort(key=lambda p: (-len(ids[p.id]), p.id))
        for start in range(0, len(fits), self.batch_size):
            batch = fits[start : start + self.batch_size]
            for answer in self._batch(model, batch, [ids[p.id] for p in batch], sampling, seed + start):
                answers[answer.id] = answer
        return [answers[p.id] for p in prompts]

    def _batch(
        self, model: Any, prompts: Sequence[Prompt], ids: Sequence[list[int]], sampling: Sampling, seed: int
    ) -> list[Generation]:
        import torch

        torch.manual_seed(seed)
        written = write(model, self.tokenizer, ids, sampling)
        return [self._answer(prompt, one) for prompt, one in zip(prompts, written, strict=True)]

    def _answer(self, prompt: Prompt, written: Written) -> Generation:
        text = self.tokenizer.decode(written.tokens, skip_special_tokens=True)
        return Generation(prompt.id, text, "stop" if written.stopped else "length", len(written.tokens))

    def _adapted(self, adapter: Path | None) -> Any:
        """The model with one adapter, in evaluation mode: with dropout on, predictions would be random.

        The previous adapter is unloaded: an engine that kept them all would grow with every member that it answers for.
        """
        from peft import PeftModel

        if adapter != self.adapter:
            if isinstance(self.model, PeftModel):
                self.model = self.model.unload()
            self.adapter = None  # even if the next one cannot be loaded
            if adapter is not None:
                self.model = attach_adapter(self.model, adapter)
            self.adapter = adapter
        return self.model.eval()
