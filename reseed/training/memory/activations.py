"""The bytes that autograd keeps for one step, traced on a model without storage."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def shape_only_attention(eager: bool = False) -> str:
    """Register an attention that keeps what a flash kernel keeps: on meta, PyTorch's own would keep every probability.

    With `eager`, it keeps what attention with a soft cap keeps; transformers' own would ask a mask for its values.
    """
    import torch
    from transformers import AttentionInterface

    class Keep(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, query: Any, key: Any, value: Any) -> Any:
            out = torch.empty_like(query)
            sums = query.new_empty(query.shape[:-1], dtype=torch.float32)
            ctx.save_for_backward(query, key, value, out, sums)
            return out

    def attention(module: Any, query: Any, key: Any, value: Any, mask: Any, **options: Any) -> tuple[Any, None]:
        out = Keep.apply(query, key, value)  # type: ignore[no-untyped-call]
        return out.transpose(1, 2).contiguous(), None

    if eager:
        from transformers.models.gemma2.modeling_gemma2 import eager_attention_forward

        AttentionInterface.register("shape-only-eager", eager_attention_forward)
        return "shape-only-eager"
    AttentionInterface.register("shape-only", attention)
    return "shape-only"


def activation_bytes(
    model: Any, rows: int, tokens: int, labels: int, checkpointing: bool, whole_inputs: Collection[int] = ()
) -> int:
    """The bytes that autograd keeps of one forward pass, or the most at any time with gradient checkpointing.

    That is every layer's input, and all of one layer or of the head. `whole_inputs` are the ids of the weights whose
    layer keeps its input although the weight is not trained.
    """
    everything = saved_bytes(model, rows, tokens, labels, whole_inputs)
    if not checkpointing:
        return everything
    layers = int(model.config.num_hidden_layers)
    head = saved_bytes(model, rows, tokens, labels, whole_inputs, layers=0)
    inputs = rows * tokens * int(model.config.hidden_size) * int(model.dtype.itemsize) * layers
    one = (everything - head) // layers
    return inputs + max(head, one)  # the head's are freed before the last layer is recomputed


def saved_bytes(
    model: Any, rows: int, tokens: int, labels: int, whole_inputs: Collection[int] = (), layers: int | None = None
) -> int:
    """Bytes of the storages, except parameters, that a forward pass and its loss keep for the backward pass."""
    import torch

    own = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage  # held, so that no later storage gets its address
        return tensor

    core = model.get_base_model().model
    whole = core.layers
    core.layers = whole[: len(whole) if layers is None else layers]
    try:
        with linear_inputs(keep, whole_inputs), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            ids = torch.zeros(rows, tokens, dtype=torch.long, device="meta")
            embedded = model.get_input_embeddings()(ids).requires_grad_(True)
            logits = model(inputs_embeds=embedded, logits_to_keep=labels, use_cache=False).logits
            targets = torch.zeros(rows * labels, dtype=torch.long, device="meta")
            torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), targets, reduction="sum")
    finally:
        core.layers = whole
    return sum(storage.nbytes() for storage in kept.values())


@contextmanager
def linear_inputs(keep: Callable[[torch.Tensor], torch.Tensor], weights: Collection[int]) -> Iterator[None]:
    """Within the block `keep` gets the input of every linear layer whose weight's id is among `weights`."""
    import torch

    plain: Any = torch.nn.functional.linear

    def linear(value: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> Any:
        if id(weight) in weights:
            keep(value)
        return plain(value, weight, bias)

    functional: Any = torch.nn.functional
    functional.linear = linear
    try:
        yield
    finally:
        functional.linear = plain
