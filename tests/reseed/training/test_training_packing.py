"""Packing: rows share a sequence and see nothing of one another; the loss, its gradient and the curve stay the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_rows import PROBLEM, SHORT, job, rows
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from reseed.language.tokens import IGNORED, Example
from reseed.records import ReseedError
from reseed.training.job import Silent
from reseed.training.layout import Layout, check_attention, collate_packed, pack
from reseed.training.loop import train
from reseed.training.loss import evaluation_loss, summed_loss

PAD = 0
SHAPE: dict[str, Any] = {
    "vocab_size": 300, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 256, "initializer_range": 0.3, "pad_token_id": PAD,
    "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
FAMILIES: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "llama": (LlamaForCausalLM, LlamaConfig, {}),
    "mistral": (MistralForCausalLM, MistralConfig, {"sliding_window": 8}),
    "mixtral": (MixtralForCausalLM, MixtralConfig, {"num_local_experts": 4, "sliding_window": None}),
    "gemma2": (Gemma2ForCausalLM, Gemma2Config, {"head_dim": 8, "sliding_window": 8, "query_pre_attn_scalar": 8}),
    "qwen2": (Qwen2ForCausalLM, Qwen2Config, {}),
}


def tiny(family: str, attention: str = "sdpa") -> Any:
    """A random model whose next token depends on the whole text."""
    kind, config, own = FAMILIES[family]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return kind._from_config(config(**SHAPE, **own), attn_implementation=attention).eval()


def example(length: int, seed: int, prompt: int = 2) -> Example:
    drawn = torch.randint(3, 300, (length,), generator=torch.Generator().manual_seed(seed)).tolist()
    return Example(tuple(drawn), (IGNORED,) * prompt + tuple(drawn[prompt:]), prompt)


def logits(model: Any, groups: list[list[Example]]) -> torch.Tensor:
    batch = collate_packed(groups, PAD)
    with torch.inference_mode():
        return model(input_ids=batch["input_ids"], position_ids=batch["position_ids"], use_cache=False).logits


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_document_sees_nothing_of_the_others(family: str, attention: str) -> None:
    model = tiny(family, attention)
    first, other, second, third = example(11, 1), example(11, 2), example(17, 3), example(5, 4)
    before = logits(model, [[first, second, third], [third]])
    after = logits(model, [[other, second, third], [third]])
    assert float((before[0, :11] - after[0, :11]).abs().max()) > 1e-2, "the first document did change"
    torch.testing.assert_close(before[0, 11:], after[0, 11:], rtol=0, atol=1e-6)
    alone = logits(model, [[second]])
    torch.testing.assert_close(before[0, 11:28], alone[0], rtol=0, atol=2e-5)
    torch.testing.assert_close(before[0, 28:33], before[1, :5], rtol=0, atol=2e-5)


@pytest.mark.parametrize("family", ["llama", "mixtral"])
def test_without_positions_that_restart_a_document_would_see_the_others(family: str) -> None:
    model = tiny(family)
    batches = [collate_packed([[first, example(17, 3)]], PAD) for first in (example(11, 1), example(11, 2))]
    with torch.inference_mode():
        before, after = (model(input_ids=batch["input_ids"]).logits for batch in batches)
    assert float((before[0, 11:] - after[0, 11:]).abs().max()) > 1e-2


def test_packed_batches() -> None:
    three = [Example((8, 9), (IGNORED, 9), 1), Example((4,), (4,)), Example((5, 6, 7, 3), (5, 6, 7, 3))]
    batch = Layout(pad=0, pack_to=5)(three)
    assert batch["input_ids"].tolist() == [[5, 6, 7, 3], [8, 9, 4, 0]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 3], [0, 1, 0, 0]]
    assert batch["labels"].tolist() == [
        [IGNORED, 6, 7, 3],
        [IGNORED, 9, IGNORED, IGNORED],
    ], "a document's first token is predicted by no other document"
    assert "attention_mask" not in batch, "with one, transformers would not look for documents"
    weighted = Layout(pad=0, pack_to=5, prompt_weight=0.5)(three)
    assert weighted["prompt"].tolist() == [[0] * 4, [1, 0, 0, 0]]


def test_packing_puts_every_row_once_and_fills_sequences() -> None:
    lengths = torch.randint(3, 60, (200,), generator=torch.Generator().manual_seed(0)).tolist()
    some = [example(length, n) for n, length in enumerate(lengths)]
    groups = pack(some, 64)
    assert groups == pack(some, 64)
    assert sorted(e.ids for group in groups for e in group) == sorted(e.ids for e in some)
    longest = max(sum(len(e.ids) for e in group) for group in groups)
    assert longest <= 64
    assert longest * len(groups) <= 1.1 * sum(lengths)


def test_packed_sequences_are_of_like_length_and_no_longer_than_need_be() -> None:
    some = [example(length, n) for n, length in enumerate((30, 29, 28, 27, 12, 10, 9, 8))]  # 153 tokens
    for room, count in ((1000, 4), (80, 4), (32, 6)):
        groups = pack(some, room)
        assert len(groups) == count
        assert max(sum(len(e.ids) for e in group) for group in groups) <= min(room, 39)


@pytest.mark.parametrize("weight", [None, 0.3])
@pytest.mark.parametrize("family", FAMILIES)
def test_evaluation_loss_is_the_same_packed_and_at_every_batch_size(family: str, weight: float | None) -> None:
    model = tiny(family)
    some = [example(3 + 5 * n % 31, n, prompt=n % 3) for n in range(20)]
    if weight is not None:
        some = [Example(e.ids, e.ids, e.prompt) for e in some]
    alone = evaluation_loss(model, some, Layout(PAD, None, weight), 1)
    for pack_to in (None, 40, 256):
        for size in (1, 4, 8):
            loss = evaluation_loss(model, some, Layout(PAD, pack_to, weight), size)
            assert loss == pytest.approx(alone, rel=1e-5)


@pytest.mark.parametrize("family", ["llama", "mixtral", "gemma2"])
def test_the_packed_gradient_is_the_same(family: str) -> None:
    model = tiny(family)
    some = [example(4 + 7 * n % 23, n) for n in range(8)]
    found = []
    for layout in (Layout(PAD), Layout(PAD, 64)):
        model.zero_grad()
        loss, count = summed_loss(model, layout(some))
        (loss / count).backward()
        found.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    assert found[0].keys() == found[1].keys()
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("loss_on", ["completion", "weighted"])
def test_training_packed_gives_the_same_curve(tiny_model: Path, tmp_path: Path, loss_on: str) -> None:
    lengths = rows(12, words=4) + rows(24, words=20)[12:]
    curves, tokens = [], []
    for packing in (False, True):
        settings = SHORT.model_copy(update={"packing": packing, "loss_on": loss_on, "batch_size": 8})
        place = tmp_path / str(packing)
        summary = train(job(tiny_model, settings=settings), PROBLEM, lengths, rows(3), place / "work", Silent())
        assert summary is not None
        curves.append([point.train or point.validation for point in summary.curve])
        tokens.append(summary.tokens_seen)
    assert curves[1] == pytest.approx(curves[0], rel=1e-5)
    assert tokens[1] == tokens[0], "padding does not count"


def test_an_attention_that_would_look_across_is_refused() -> None:
    model = tiny("llama")
    check_attention(model, Layout(PAD, 64))
    model.config._attn_implementation_internal = "flash_attention_2"
    check_attention(model, Layout(PAD))
    with pytest.raises(ReseedError, match=r"training\.packing: with flash_attention_2 attention a row could look into"):
        check_attention(model, Layout(PAD, 64))
