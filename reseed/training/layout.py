"""Examples laid out as a batch: one to a sequence, padded, or several packed into each sequence."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from reseed.language.tokens import IGNORED, Example
from reseed.records import ReseedError
from reseed.settings import TrainingSettings

if TYPE_CHECKING:
    import torch

SLACK = 0.05  # the share of padding that packing accepts for the sake of shorter sequences
# Attentions that keep packed rows apart. Flash attention does so in batches of one sequence only.
MASKED = ("sdpa", "eager", "flex_attention", "blockwise")


@dataclass(frozen=True)
class Layout:
    """Makes batches: int64 tensors of shape (sequences, longest).

    Packing changes where the rows of a batch stand, and nothing else: a step has the same rows, and up to rounding the
    same loss and gradient. So `batch_size` and the profile's `micro_batch_size` still count rows; with packing the
    latter can be raised until the accelerator is busy.
    """

    pad: int
    pack_to: int | None = None  # most tokens of a packed sequence; None: one row a sequence
    prompt_weight: float | None = None  # what a label within the prompt counts; None: as much as any other

    def __call__(self, examples: Sequence[Example]) -> dict[str, torch.Tensor]:
        """`input_ids`, `labels`, and for packed rows `position_ids` that restart.

        With a `prompt_weight`, `prompt` says which tokens are a prompt's.
        """
        if self.pack_to is None:
            batch = collate(examples, self.pad)
            groups = [[example] for example in examples]
        else:
            groups = pack(examples, self.pack_to)
            batch = collate_packed(groups, self.pad)
        if self.prompt_weight is not None:
            batch["prompt"] = tensor([[n < e.prompt for e in g for n in range(len(e.ids))] for g in groups], 0)
        return batch


def layout_of(settings: TrainingSettings, pad: int) -> Layout:
    """The layout that the training settings ask for."""
    weight = settings.prompt_weight if settings.loss_on == "weighted" else None
    return Layout(pad, settings.max_tokens if settings.packing else None, weight)


def collate(examples: Sequence[Example], pad: int) -> dict[str, torch.Tensor]:
    """Right-padded `input_ids` and `labels`, each int64 of shape (rows, longest).

    There is no attention mask: no token of a causal model sees what is to its right, and without a mask the fastest
    attention kernels apply.
    """
    return {
        "input_ids": tensor([e.ids for e in examples], pad),
        "labels": tensor([e.labels for e in examples], IGNORED),
    }


def collate_packed(groups: Sequence[Sequence[Example]], pad: int) -> dict[str, torch.Tensor]:
    """Each group's rows one after the other: `input_ids`, `position_ids`, `labels`, each int64 of shape (groups, longest).

    Without an attention mask, transformers takes a position that does not follow the previous one as the start of
    another document, and lets no token look further back. The padding is a document of its own. A document's first
    token is no label: the token before it belongs to another one.
    """
    longest = max(size(group) for group in groups)
    positions = []
    for group in groups:
        lengths = [len(example.ids) for example in group]
        lengths.append(longest - sum(lengths))
        positions.append([place for length in lengths for place in range(length)])
    labels = [[label for e in group for label in (IGNORED, *e.labels[1:])] for group in groups]
    return {
        "input_ids": tensor([[token for e in group for token in e.ids] for group in groups], pad),
        "position_ids": tensor(positions, 0),
        "labels": tensor(labels, IGNORED),
    }


def tensor(sequences: Sequence[Sequence[int]], fill: int) -> torch.Tensor:
    """The sequences as int64 of shape (sequences, longest), padded on the right with `fill`."""
    import torch

    longest = max(len(sequence) for sequence in sequences)
    return torch.tensor([[*map(int, s), *[fill] * (longest - len(s))] for s in sequences], dtype=torch.int64)


def pack(examples: Sequence[Example], room: int) -> list[list[Example]]:
    """Groups of at most `room` tokens, one for each sequence. Equal input gives equal groups.

    Of the numbers of sequences that pad little, the largest is taken: attention grows with the square of a sequence's
    length, even where the mask hides the other documents.
    """
    found = []
    for count in range(1, len(examples) + 1):
        groups = spread(examples, count)
        longest = max(size(group) for group in groups)
        if longest <= room:
            found.append((count * longest, groups))
    fewest = min(tokens for tokens, _ in found)
    return [groups for tokens, groups in found if tokens <= (1 + SLACK) * fewest][-1]


def spread(examples: Sequence[Example], count: int) -> list[list[Example]]:
    """`count` groups of similar size: each row, the longest first, goes into the smallest group so far."""
    groups: list[list[Example]] = [[] for _ in range(count)]
    sizes = [(0, n) for n in range(count)]
    for example in sorted(examples, key=lambda e: -len(e.ids)):
        tokens, n = heapq.heappop(sizes)
        groups[n].append(example)
        heapq.heappush(sizes, (tokens + len(example.ids), n))
    return groups


def size(group: Sequence[Example]) -> int:
    """The number of tokens in a group."""
    return sum(len(example.ids) for example in group)


def check_attention(model: Any, layout: Layout) -> None:
    """Refuse packing with an attention that would look across documents."""
    used = model.config._attn_implementation
    if layout.pack_to is not None and used not in MASKED:
        raise ReseedError(
            f"training.packing: with {used} attention a row could look into the rows packed with it; "
            f"use one of {', '.join(MASKED)}, or leave packing out"
        )
