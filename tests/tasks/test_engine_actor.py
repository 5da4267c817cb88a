"""What an engine's actor does with a job, in this process."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tiny import save_model
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer

from reseed.generation.engine import Batch
from reseed.models.names import ModelSpec
from reseed.problems import ProblemModule, load_problem
from reseed.records import Prompt, Sampling
from tasks.engines import EngineActor

PROBLEM = load_problem("prompt-recovery")


def begin_with_bos(folder: Path) -> None:
    """Make the tokenizer begin every text with BOS, as most base models' tokenizers do."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    bos = tokenizer.bos_token
    special = [(bos, tokenizer.bos_token_id)]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single=f"{bos} $A", special_tokens=special)
    tokenizer.save_pretrained(folder)


def test_a_row_that_cannot_be_cut_is_left_unanswered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A text without blanks cannot be shortened: it must not end a prediction after every member has been trained."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    spec = ModelSpec(name=str(save_model(tmp_path / "model")), dtype="float32")
    actor = EngineActor(spec, 4, 1, str(tmp_path / "store"))
    good = PROBLEM.row("The boat lay in the sun.", "Make it rhyme.", "THE BOAT")
    bad = PROBLEM.row("x" * 3000, "Make it rhyme.", "y" * 3000)
    job = Batch("one", Sampling(8), rows=(bad, good), problem=ProblemModule("prompt-recovery"), max_tokens=300)
    answers = {answer.id: answer for answer in actor.run(job)}
    assert answers[bad["id"]].finish == "too-long"
    assert answers[bad["id"]].text == ""
    assert answers[good["id"]].finish in ("stop", "length")


def test_a_job_in_the_chat_format_keeps_bos_where_the_model_has_no_template(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    folder = save_model(tmp_path / "model")
    begin_with_bos(folder)
    (folder / "chat_template.jinja").unlink()
    actor = EngineActor(ModelSpec(name=str(folder), dtype="float32"), 4, 1, str(tmp_path / "store"))
    job = Batch("one", Sampling(8, temperature=1.0), 0, (Prompt("a", "The sea"), Prompt("b", "Make it rhyme.")))
    assert actor.run(replace(job, chat=True)) == actor.run(job)
