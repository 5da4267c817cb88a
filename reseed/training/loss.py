"""The loss, weighted by tokens, with logits only where a label is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from reseed.training.tokens import IGNORED, Example, collate

if TYPE_CHECKING:
    import torch


def summed_loss(model: Any, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Negative log-likelihood summed over the labelled tokens (float32 scalar), and their number (int64 scalar).

    The output head runs only at positions where some row of the batch has a label: with a vocabulary of 49 152 the
    full logits would be the largest tensor of the step.
    """
    import torch

    targets = batch["labels"][:, 1:]
    positions = (targets != IGNORED).any(dim=0).nonzero().squeeze(1)
    out = model(
        input_ids=batch["input_ids"],
        attention_mask=batch["attention_mask"],
        logits_to_keep=positions,
        use_cache=False,
    )
    kept = targets[:, positions]
    loss = torch.nn.functional.cross_entropy(
        out.logits.float().flatten(0, 1), kept.flatten(), ignore_index=IGNORED, reduction="sum"
    )
    return loss, (kept != IGNORED).sum()


def evaluation_loss(
    model: Any, examples: Sequence[Example], pad: int, batch_size: int, rank: int = 0, world: int = 1
) -> float:
    """Mean loss over all label tokens of all rows, the same whatever the batch size and the number of ranks.

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
            batch = collate(batches[min(mine, len(batches) - 1)], pad)
            loss, count = summed_loss(model, {key: value.to(device) for key, value in batch.items()})
            if mine < len(batches):
                total += torch.stack([loss.double(), count.double()])
    model.train(was_training)
    if world > 1:
        torch.distributed.all_reduce(total)
    return float(total[0] / total[1])
