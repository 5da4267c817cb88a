"""Causal attention in bfloat16 on a CPU, by blocks of queries.

PyTorch's flash attention for CPUs took 40 % of a step and ran at a tenth of the rate of its matrix products. Here the
products are batched ones of the library; a block of queries sees the keys up to its own end and from the first one that
its mask shows, so neither the future nor the documents packed before cost anything. Probabilities are recomputed in the
backward pass, one block at a time, so memory grows with the length and not with its square. Scores are rounded to
bfloat16, as in transformers' eager attention.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers.integrations.sdpa_attention import sdpa_attention_forward

NAME = "blockwise"
BLOCK = 128  # queries at a time; of 300 to 1 000 tokens, 256 took 1.6 to 2.2 times as long, 64 from 0.73 to 0.94 times


def use_blockwise(model: Any) -> None:
    """Let a model in bfloat16 on a CPU attend by blocks, where it would use PyTorch's scaled dot product."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    on_cpu = next(model.parameters()).device.type == "cpu"
    if on_cpu and model.dtype == torch.bfloat16 and model.config._attn_implementation == "sdpa":
        AttentionInterface.register(NAME, attention)
        AttentionMaskInterface.register(NAME, sdpa_mask)
        model.set_attn_implementation(NAME)


def attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """transformers' attention function: (rows, heads, tokens, size) each, to (rows, tokens, heads, size).

    `mask` is boolean, (rows, 1, tokens, tokens), within the causal triangle. What is not plain causal attention of a
    sequence to itself (a cached step of generation, dropout, biases) goes to PyTorch's own.
    """
    plain = query.shape[2] == key.shape[2] > 1 and dropout == 0 and options.get("position_bias") is None
    boolean = mask is None or mask.dtype == torch.bool
    if not (plain and boolean and query.dtype == torch.bfloat16 and getattr(module, "is_causal", True)):
        return sdpa_attention_forward(module, query, key, value, mask, dropout, scaling, **options)  # type: ignore[no-any-return]
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    out = Blockwise.apply(query * scale, key, value, mask)  # type: ignore[no-untyped-call]
    return out.transpose(1, 2).contiguous(), None


class Blockwise(torch.autograd.Function):
    """softmax(query · keyᵀ) · value. Query heads share key heads in equal groups, in order."""

    @staticmethod
    def forward(
        ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None
    ) -> torch.Tensor:
        """The attention's output, in the shape of `query`."""
        ctx.save_for_backward(query, key, value, *([] if mask is None else [mask]))
        ctx.blocks = query_blocks(query.shape[2], mask)
        keys, values = key.flatten(0, 1), value.flatten(0, 1)
        out = torch.empty_like(query)
        for first, begin, end in ctx.blocks:
            chance = probabilities(fold_heads(query, key, begin, end), keys, mask, first, begin, end)
            out[:, :, begin:end] = torch.bmm(chance, values[:, first:end]).view_as(out[:, :, begin:end])
        return out

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """The gradients of query, key and value."""
        query, key, value, *masks = ctx.saved_tensors
        mask, keys, values = masks[0] if masks else None, key.flatten(0, 1), value.flatten(0, 1)
        to_query, to_keys, to_values = torch.empty_like(query), torch.zeros_like(keys), torch.zeros_like(values)
        for first, begin, end in ctx.blocks:
            block, grad = fold_heads(query, key, begin, end), fold_heads(grads[0], key, begin, end)
            chance = probabilities(block, keys, mask, first, begin, end)
            to_values[:, first:end] += torch.bmm(chance.transpose(1, 2), grad)
            upstream = torch.bmm(grad, values[:, first:end].transpose(1, 2))
            scores = torch._softmax_backward_data(upstream, chance, -1, chance.dtype)
            to_query[:, :, begin:end] = torch.bmm(scores, keys[:, first:end]).view_as(to_query[:, :, begin:end])
            to_keys[:, first:end] += torch.bmm(scores.transpose(1, 2), block)
        return to_query, to_keys.view_as(key), to_values.view_as(value), None


def query_blocks(tokens: int, mask: torch.Tensor | None) -> list[tuple[int, int, int]]:
    """For each block of queries: the first key that one of them may see, and where the block begins and ends."""
    found = []
    for begin in range(0, tokens, BLOCK):
        end = min(tokens, begin + BLOCK)
        seen = None if mask is None else mask[:, 0, begin:end, :end].flatten(0, 1).any(0)
        found.append((0 if seen is None or not seen.any() else int(seen.int().argmax()), begin, end))
    return found


def fold_heads(tensor: torch.Tensor, key: torch.Tensor, begin: int, end: int) -> torch.Tensor:
    """A block of (rows, heads, tokens, size) as (rows · key heads, heads a key head · tokens, size): a group of query
    heads meets its key head in one product."""
    return tensor[:, :, begin:end].reshape(key.shape[0] * key.shape[1], -1, tensor.shape[-1])


def probabilities(
    block: torch.Tensor, keys: torch.Tensor, mask: torch.Tensor | None, first: int, begin: int, end: int
) -> torch.Tensor:
    """The attention weights of the block's queries over the keys from `first` to `end`."""
    scores = torch.bmm(block, keys[:, first:end].transpose(1, 2))
    lowest = torch.finfo(scores.dtype).min
    if mask is None:
        by_query = scores.view(-1, end - begin, end - first)
        future = torch.ones(end - begin, end - begin, dtype=torch.bool).triu(1)
        by_query[:, :, begin - first :].masked_fill_(future, lowest)
    else:
        hidden = mask[:, :, begin:end, first:end].logical_not()
        scores.view(mask.shape[0], -1, end - begin, end - first).masked_fill_(hidden, lowest)
    return torch.softmax(scores, -1)
