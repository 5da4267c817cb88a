"""A loss that is NaN or infinite is found before it is logged, evaluated or saved, with the rows that it came from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

from reseed.language.tokens import Example
from reseed.records import ReseedError

if TYPE_CHECKING:
    import torch

SHOWN = 8  # rows that a message names


class StepLosses:
    """The losses of the current step, checked together so that the accelerator is waited for once a step."""

    def __init__(self, examples: Sequence[Example], ids: Sequence[str]) -> None:
        self.examples, self.ids = examples, ids
        self._open: list[tuple[torch.Tensor, torch.Tensor]] = []

    def add(self, tokens: torch.Tensor, loss: torch.Tensor) -> None:
        """One micro-batch: its token ids, shape (rows, longest), and its loss, a scalar."""
        self._open.append((tokens, loss.detach()))

    def check(self, step: int, save_every: int) -> None:
        """End the run at step `step`, on every rank alike, if a loss on any rank is NaN. Raises ReseedError."""
        import torch

        batches, self._open = self._open, []
        losses = torch.stack([loss.float() for _, loss in batches])
        wrong = (~losses.isfinite()).any().float()
        if torch.distributed.is_initialized():
            torch.distributed.all_reduce(wrong, torch.distributed.ReduceOp.MAX)
        if wrong:
            bad = [(tokens, float(loss)) for tokens, loss in batches if not loss.isfinite()]
            self._stop(bad, step, save_every)

    def _stop(self, bad: Sequence[tuple[torch.Tensor, float]], step: int, save_every: int) -> NoReturn:
        import torch

        own = [(loss, self.rows(tokens)) for tokens, loss in bad]
        gathered: list[list[tuple[float, list[str]]] | None] = [own]
        if torch.distributed.is_initialized():
            gathered = [None] * torch.distributed.get_world_size()
            torch.distributed.all_gather_object(gathered, own)
        every = [found for part in gathered for found in part or []]
        rows = list(dict.fromkeys(row for _, part in every for row in part))
        more = f" and {len(rows) - SHOWN} more" if len(rows) > SHOWN else ""
        last = (step - 1) // save_every * save_every
        kept = f"the checkpoint of step {last} is kept" if last else "there is no checkpoint yet"
        raise ReseedError(
            f"training: the loss is {every[0][0]} at step {step}, in the batch of rows {', '.join(rows[:SHOWN])}{more}; "
            f"lower training.learning_rate or look at these rows; {kept}"
        )

    def rows(self, tokens: torch.Tensor) -> list[str]:
        """The ids of the rows whose tokens are in a batch, padded or packed."""
        lines = [" ".join(["", *map(str, line), ""]) for line in tokens.tolist()]
        parts = [" ".join(["", *map(str, example.ids), ""]) for example in self.examples]
        return [name for name, part in zip(self.ids, parts, strict=True) if any(part in line for line in lines)]
