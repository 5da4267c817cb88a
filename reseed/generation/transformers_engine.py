"""The engine that needs nothing but transformers: batches of similar length, padded on the left."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from reseed.generation.writing import Written, write
from reseed.models.cache import materialise
from reseed.models.loading import load_model
from reseed.models.names import ModelSpec
from reseed.models.tokenizers import load_tokenizer
from reseed.problems import Problem
from reseed.records import Generation, Prompt, Row, Sampling
from reseed.training.adapters import attach_adapter
from reseed.training.prompts import TEXT, PromptFormat, chat_text, prompt_text
from reseed.training.tokens import fit


class TransformersEngine:
    """One model in memory, with the adapters it was asked for so far."""

    def __init__(self, spec: ModelSpec, batch_size: int) -> None:
        folder = materialise(spec)
        self.tokenizer = load_tokenizer(folder)
        self.model = load_model(folder, spec).eval()
        self.batch_size = batch_size
        self.adapters: dict[Path, str] = {}
        config = self.model.config.get_text_config()  # of its part that reads text, where a model reads pictures too
        self.context = int(getattr(config, "max_position_embeddings", sys.maxsize))

    def chat(self, text: str) -> str:
        """A user's turn in the model's own chat format, begun by one BOS where the model has one; the text as it is
        for a model without a chat format."""
        if self.tokenizer.chat_template is None:
            return text
        return chat_text(self.tokenizer, text)

    def question(
        self, problem: Problem, row: Row, sampling: Sampling, max_tokens: int, style: PromptFormat = TEXT
    ) -> str:
        """The student's prompt for a row, in the format and cut in the source text as in training, so that the answer
        has its room. `generate` is told when the format is a template (`style.templated`)."""
        short, _ = fit(problem, row, self.tokenizer, max_tokens - sampling.max_new_tokens, style)
        return prompt_text(self.tokenizer, problem.prompt(short), style)

    def generate(
        self,
        prompts: Sequence[Prompt],
        sampling: Sampling,
        seed: int,
        adapter: Path | None = None,
        templated: bool = False,
    ) -> list[Generation]:
        """Answers in the order of the prompts.

        A prompt too long for the model's context is answered with finish `too-long` and no text, and the others go on.
        `templated` says that a chat template already wrote BOS.
        """
        model = self._adapted(adapter)
        ids = {p.id: self.tokenizer(p.text, add_special_tokens=not templated).input_ids for p in prompts}
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
        """The model with one adapter switched on, in evaluation mode: dropout left on makes predictions random."""
        from peft import PeftModel

        if adapter is None:
            if isinstance(self.model, PeftModel):
                self.model = self.model.unload()
                self.adapters.clear()
            return self.model
        if adapter not in self.adapters:
            name = f"adapter{len(self.adapters)}"
            self.model = attach_adapter(self.model, adapter, name)
            self.adapters[adapter] = name
        self.model.set_adapter(self.adapters[adapter])
        return self.model.eval()
