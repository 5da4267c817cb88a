"""Attention by blocks on a CPU is attention: as near to float32 as PyTorch's own, and blind across documents to the bit."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from reseed.language.tokens import Example
from reseed.training.cpu_attention import BLOCK, NAME, attention, query_blocks, use_blockwise
from reseed.training.layout import Layout
from reseed.training.loss import summed_loss

MODULE = SimpleNamespace(num_key_value_groups=3, is_causal=True)


def drawn(tokens: int, size: int = 16, dtype: torch.dtype = torch.bfloat16) -> tuple[torch.Tensor, ...]:
    """Query, key, value of 2 rows, 6 heads and 2 key heads, laid out as models lay them, and a gradient."""
    chance = torch.Generator().manual_seed(tokens)
    shapes = [(2, tokens, heads, size) for heads in (6, 2, 2, 6)]
    tensors = [torch.randn(shape, generator=chance).to(dtype) for shape in shapes]
    return *(t.transpose(1, 2).requires_grad_() for t in tensors[:3]), tensors[3]


def mask_of(kind: str, tokens: int) -> torch.Tensor | None:
    """What transformers hands over: boolean, (rows, 1, tokens, tokens), or nothing."""
    triangle = torch.ones(tokens, tokens, dtype=torch.bool).tril()
    if kind == "causal":
        return None
    if kind == "window":
        return triangle.triu(-20).expand(2, 1, -1, -1)
    if kind == "left padding":  # the first tokens of the second row see nothing
        real = torch.arange(tokens) >= torch.tensor([[0], [tokens // 3]])
        return (triangle & real[:, None, :])[:, None]
    document = (torch.arange(tokens) >= tokens // 2) + (torch.arange(tokens) >= tokens // 3).int()
    return (triangle & (document[:, None] == document)).expand(2, 1, -1, -1)


def outcome(function: Any, mask: torch.Tensor | None, tensors: tuple[torch.Tensor, ...]) -> list[torch.Tensor]:
    """The output and the three gradients, where the output is one that a real token sees."""
    query, key, value, grad = tensors
    out, _ = function(MODULE, query, key, value, mask, scaling=0.2)
    if mask is not None:
        grad = grad * mask.any(-1)[:, 0, :, None, None]
    return [out * (grad != 0), *torch.autograd.grad(out, (query, key, value), grad)]


@pytest.mark.parametrize("tokens", [2, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK - 7])
@pytest.mark.parametrize("kind", ["causal", "window", "left padding", "packed"])
def test_output_and_gradients_are_as_near_to_float32_as_those_of_pytorch(kind: str, tokens: int) -> None:
    tensors, mask = drawn(tokens), mask_of(kind, tokens)
    exact = outcome(sdpa_attention_forward, mask, tuple(t.detach().float().requires_grad_() for t in tensors))
    theirs, ours = (outcome(function, mask, tensors) for function in (sdpa_attention_forward, attention))
    for wanted, their, our in zip(exact, theirs, ours, strict=True):
        assert our.isfinite().all()
        reached, error = (float(torch.linalg.vector_norm(t.float() - wanted).detach()) for t in (their, our))
        assert error <= 2.5 * reached + 1e-3 * float(torch.linalg.vector_norm(wanted.detach()))


def test_a_document_is_blind_to_those_packed_before_it() -> None:
    tokens = 3 * BLOCK
    mask = mask_of("packed", tokens)
    query, key, value, _ = drawn(tokens)
    out, _ = attention(MODULE, query, key, value, mask)
    out[:, tokens // 2 :].float().sum().backward()
    for tensor in (query, key, value):
        assert tensor.grad is not None
        assert not tensor.grad[:, :, : tokens // 2].any()
        assert tensor.grad[:, :, tokens // 2 :].any()
    changed = [t.detach().clone() for t in (query, key, value)]
    for tensor in changed:
        tensor[:, :, : tokens // 2] = 7
    again, _ = attention(MODULE, *changed, mask)
    assert torch.equal(out[:, tokens // 2 :], again[:, tokens // 2 :])


def test_blocks_begin_at_the_first_key_that_is_seen() -> None:
    tokens = 3 * BLOCK
    assert query_blocks(tokens, None) == [(0, 0, BLOCK), (0, BLOCK, 2 * BLOCK), (0, 2 * BLOCK, tokens)]
    document = torch.arange(tokens) >= BLOCK
    mask = (torch.ones(tokens, tokens, dtype=torch.bool).tril() & (document[:, None] == document))[None, None]
    assert [first for first, _, _ in query_blocks(tokens, mask)] == [0, BLOCK, BLOCK]


def test_memory_grows_with_the_length_not_with_its_square() -> None:
    kept = []
    for tokens in (2 * BLOCK, 8 * BLOCK):
        saved: dict[int, int] = {}

        def keep(tensor: torch.Tensor, saved: dict[int, int] = saved) -> torch.Tensor:
            saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        query, key, value, _ = drawn(tokens)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            attention(MODULE, query, key, value, None)
        kept.append(sum(saved.values()))
    assert kept[1] == 4 * kept[0]


@pytest.mark.parametrize("what", ["float32", "cached step", "no causal model"])
def test_everything_else_is_left_to_pytorch(what: str) -> None:
    query, key, value, _ = drawn(40, dtype=torch.float32 if what == "float32" else torch.bfloat16)
    module = SimpleNamespace(num_key_value_groups=3, is_causal=what != "no causal model")
    if what == "cached step":
        query = query[:, :, -1:]
    ours, theirs = (
        function(module, query, key, value, None, scaling=0.2)[0] for function in (attention, sdpa_attention_forward)
    )
    assert torch.equal(ours, theirs)


def llama(dtype: torch.dtype) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return LlamaForCausalLM(
            LlamaConfig(
                vocab_size=100, hidden_size=48, intermediate_size=64, num_hidden_layers=2, num_attention_heads=6,
                num_key_value_heads=2, initializer_range=0.2,
            )
        ).to(dtype)  # fmt: skip


@pytest.mark.parametrize("pack_to", [None, 400])
def test_a_model_s_loss_stays_and_only_bfloat16_is_changed(pack_to: int | None) -> None:
    chance = torch.Generator().manual_seed(1)
    some = []
    for length in (150, 90, 60, 30):
        ids = tuple(torch.randint(1, 100, (length,), generator=chance).tolist())
        some.append(Example(ids, ids))
    batch = Layout(0, pack_to)(some)
    whole = llama(torch.float32)
    use_blockwise(whole)
    assert whole.config._attn_implementation == "sdpa"
    model = llama(torch.bfloat16)
    before = summed_loss(model, batch)[0].item()
    use_blockwise(model)
    assert model.config._attn_implementation == NAME
    after, wanted = summed_loss(model, batch)[0].item(), summed_loss(whole, batch)[0].item()
    assert after != before, "another kernel ran"
    assert after == pytest.approx(wanted, rel=2e-3)
