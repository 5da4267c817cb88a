"""The loss, weighted by tokens, with logits only where a label is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from reseed.language.tokens import IGNORED, Example
from reseed.training.layout import Layout

if TYPE_CHECKING:
    import torch


def summed_loss(
    model: Any, batch: dict[str, torch.Tensor], prompt_weight: float | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """The weighted sum of the labelled tokens' negative log-likelihoods, and the sum of the weights: the number of labels,
    unless a prompt's tokens weigh `prompt_weight`. Two float32 scalars."""
    import torch

    targets = batch["labels"][:, 1:].contiguous()
    rows, places = (targets != IGNORED).nonzero(as_tuple=True)
    with logits_only_at(model, rows * batch["labels"].shape[1] + places):
        out = model(
            input_ids=batch["input_ids"],
            position_ids=batch.get("position_ids"),
            use_cache=False,
        )
    loss = torch.nn.functional.cross_entropy(out.logits.float(), targets[rows, places], reduction="none")
    weights = label_weights(batch, prompt_weight)[rows, places]
    return (loss * weights).sum(), weights.sum()


def label_weights(batch: dict[str, torch.Tensor], prompt_weight: float | None = None) -> torch.Tensor:
    """The weight of each next token in the mean: float32 of shape (sequences, longest − 1), 0 where there is no label."""
    weights = (batch["labels"][:, 1:] != IGNORED).float()
    return weights if prompt_weight is None else weights.where(batch["prompt"][:, 1:] == 0, weights * prompt_weight)


def label_count(batch: dict[str, torch.Tensor], prompt_weight: float | None = None) -> torch.Tensor:
    """The sum of `label_weights`, an integer unless a prompt's tokens weigh less."""
    if prompt_weight is None:
        return (batch["labels"][:, 1:] != IGNORED).sum()
    return label_weights(batch, prompt_weight).sum()


@contextmanager
def logits_only_at(model: Any, places: torch.Tensor) -> Iterator[None]:
    """Within the block the output head sees only the hidden states at `places` of the flattened batch: its logits are of
    shape (places, vocabulary).

    With a vocabulary of 49 152 the full logits would be the largest tensor of the step. The head is still called by the
    model's own forward, so whatever wraps it (LoRA, gathered ZeRO-3 weights) or follows it (Gemma's soft cap) stays.
    """

    def select(_: Any, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return (inputs[0].flatten(0, 1).index_select(0, places), *inputs[1:])

    inner = model
    while hasattr(inner, "module"):  # DeepSpeed's engine, DistributedDataParallel
        inner = inner.module
    hook = inner.get_output_embeddings().register_forward_pre_hook(select)
    try:
        yield
    finally:
        hook.remove()


def evaluation_loss(
    model: Any, examples: Sequence[Example], layout: Layout, batch_size: int, rank: int = 0, world: int = 1
) -> float:
    """The weighted mean loss over all rows' labels, the same whatever the layout, batch size and number of ranks.

    Every rank runs the same number of batches (a rank without rows repeats one with weight 0), because sharded models
    gather their weights in every forward pass.
    """
    import torch

    ordered = sorted(examples, key=lambda example: len(example.ids))
    batches = [ordered[i : i + batch_size] for i in range(0, len(ordered), batch_size)]
    device = next(model.parameters()).device
    total = torch.zeros(2, dtype=torch.float64, device=device)
    was_training = model.training
    model.eval()
    with torch.inference_mode():
        for turn in range(-(-len(batches) // world)):
            mine = turn * world + rank
            batch = layout(batches[min(mine, len(batches) - 1)])
            batch = {key: value.to(device) for key, value in batch.items()}
            loss, count = summed_loss(model, batch, layout.prompt_weight)
            if mine < len(batches):
                total += torch.stack([loss.double(), count.double()])
    model.train(was_training)
    if world > 1:
        torch.distributed.all_reduce(total)
    return float(total[0] / total[1])
