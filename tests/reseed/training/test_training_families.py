"""The base model is swapped by its name alone: a tiny random twin of every family, trained by the same settings.

Zephyr and OpenHermes have no architecture of their own: Zephyr 7B and OpenHermes 2.5 are Mistral, OpenHermes 13B is Llama.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from peft import PeftModel
from safetensors.torch import load_file
from tiny import save_tokenizer
from tiny_rows import PROBLEM, SHORT, job, rows

from reseed.language.tokens import encode
from reseed.models.loading import load_model
from reseed.models.tokenizers import load_tokenizer
from reseed.records import ReseedError
from reseed.training.job import Silent
from reseed.training.layout import Layout
from reseed.training.loop import check_model_context, train
from reseed.training.loss import evaluation_loss

SETTINGS = SHORT.model_copy(update={"epochs": 2})  # six steps of four rows
WINDOW = 64  # of sliding attention, shorter than the rows
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {}),
    "mistral": ("Mistral", {"sliding_window": WINDOW}),
    "mixtral": ("Mixtral", {"num_local_experts": 4, "num_experts_per_tok": 2}),
    "gemma": ("Gemma", {"head_dim": 8}),
    "gemma2": ("Gemma2", {"head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": WINDOW}),
    "gemma3": ("Gemma3Text", {"head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": WINDOW}),
    "qwen2": ("Qwen2", {"tie_word_embeddings": True}),
    "qwen3": ("Qwen3", {"head_dim": 8}),
}


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a family's tiny twin: two layers of width 32 with random weights, and a tokenizer."""

    def made(family: str) -> Path:
        prefix, own = FAMILIES[family]
        folder = tmp_path_factory.mktemp(family)
        save_tokenizer(folder)
        config = getattr(transformers, f"{prefix}Config")(
            vocab_size=300, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=1024, bos_token_id=1, eos_token_id=2, pad_token_id=0,
            initializer_range=0.1, **own,
        )  # fmt: skip
        torch.manual_seed(0)
        getattr(transformers, f"{prefix.removesuffix('Text')}ForCausalLM")(config).save_pretrained(folder)
        return folder

    return made


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_is_trained_by_its_name_alone(twin: Callable[[str], Path], tmp_path: Path, family: str) -> None:
    folder = twin(family)
    what = job(folder, settings=SETTINGS, sparse=False)
    summary = train(what, PROBLEM, rows(12), rows(16)[12:], tmp_path / "work", Silent())
    assert summary is not None
    assert summary.steps == 6
    assert summary.logit_shift > 1e-3
    adapter = tmp_path / "work" / "best" / "adapter"
    assert len(load_file(adapter / "adapter_model.safetensors")) == 2 * 2 * 4, "two matrices, two layers, four modules"
    tokenizer, base = load_tokenizer(folder), load_model(folder, what.model)
    examples = encode(PROBLEM, rows(16)[12:], tokenizer, SETTINGS.max_tokens, SETTINGS.loss_on).examples
    before = evaluation_loss(base, examples, Layout(tokenizer.pad_token_id), 4)
    after = evaluation_loss(PeftModel.from_pretrained(base, adapter), examples, Layout(tokenizer.pad_token_id), 4)
    assert after == pytest.approx(summary.best_loss, rel=1e-5)
    assert after < 0.98 * before


@pytest.mark.parametrize("family", ["mixtral", "gemma3"])
def test_gradient_checkpointing_serves_every_family(twin: Callable[[str], Path], tmp_path: Path, family: str) -> None:
    folder, curves = twin(family), []
    for on in (False, True):
        settings = SETTINGS.model_copy(update={"gradient_checkpointing": on, "epochs": 1})
        what = job(folder, settings=settings, sparse=False)
        place = tmp_path / str(on)
        summary = train(what, PROBLEM, rows(12), rows(16)[12:], place / "work", Silent())
        assert summary is not None
        curves.append([point.train or point.validation for point in summary.curve])
    assert curves[1] == pytest.approx(curves[0], rel=1e-5)


def test_the_context_of_a_model_of_text_and_pictures_is_that_of_its_text(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "gemma3", "text_config": {"max_position_embeddings": 64}})
    )
    check_model_context(tmp_path, 64)
    with pytest.raises(ReseedError, match=r"training\.max_tokens: 65 is more than the model's context of 64"):
        check_model_context(tmp_path, 65)
