"""A trained model ends its answers by itself, in the format that it was trained in."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
from tiny import THINGS
from tiny_rows import PROBLEM, job

from reseed.generation.engines.transformers_engine import TransformersEngine
from reseed.language.prompts import prompt_format
from reseed.records import Sampling
from reseed.settings import TrainingSettings
from reseed.training.job import Silent
from reseed.training.loop import train

pytestmark = pytest.mark.slow
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "lm_head")
WISHES = ("Shout.", "As a poem.", "Sing it.", "Be kind.")


@pytest.mark.parametrize("style", ["text", "chat"])
def test_answers_end_with_eos(tiny_model: Path, tmp_path: Path, style: Literal["text", "chat"]) -> None:
    settings = TrainingSettings(
        rank=32, alpha=64, targets=TARGETS, epochs=20, learning_rate=0.005, batch_size=8, evaluate_every=100,
        max_tokens=400, packing=True, prompt_format=style,
    )  # fmt: skip
    some = [PROBLEM.row(f"{thing} {n}", wish, wish.upper()) for n, thing in enumerate(THINGS) for wish in WISHES]
    what = job(tiny_model, settings=settings, sparse=False, micro=8)
    trained, held_out = some[:-8], some[-8:]
    summary = train(what, PROBLEM, trained, held_out, tmp_path / "work", Silent())
    assert summary is not None
    engine = TransformersEngine(what.model, batch_size=16)
    sampling, asked = Sampling(100), prompt_format(settings)
    prompts = [engine.question(PROBLEM, row, sampling, 400, asked) for row in some]
    adapter = tmp_path / "work" / "best" / "adapter"
    before, after = (engine.generate(prompts, sampling, 0, a) for a in (None, adapter))
    assert sum(answer.finish == "stop" for answer in before) < 0.5 * len(before)
    assert sum(answer.finish == "stop" for answer in after) >= 0.95 * len(after)
    assert sum(answer.finish == "stop" for answer in after[-8:]) >= 0.95 * 8, "on held-out rows too"
