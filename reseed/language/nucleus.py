"""Nucleus sampling without sorting the vocabulary.

transformers sorts all 49 152 logits of every row at every step, which took a fifth of a small model's step. A nucleus
of 0.95 almost always lies within the few hundred likeliest tokens; if it does not, everything is sorted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from transformers import LogitsProcessor

if TYPE_CHECKING:
    import torch

LIKELIEST = 256


class Nucleus(LogitsProcessor):
    """Temperature, then the smallest set of tokens whose probability reaches `top_p`; the rest becomes −inf."""

    def __init__(self, temperature: float, top_p: float) -> None:
        self.temperature, self.top_p = temperature, top_p

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Process float32 scores of shape (rows, vocabulary)."""
        import torch

        scores = scores / self.temperature
        if self.top_p >= 1:
            return scores
        width = min(LIKELIEST, scores.shape[-1])
        best, places = scores.topk(width, dim=-1)
        total = scores.logsumexp(dim=-1, keepdim=True)
        if width < scores.shape[-1] and bool(((best - total).exp().sum(dim=-1) < self.top_p).any()):
            best, places = scores.sort(dim=-1, descending=True)
        chances = (best - total).exp()
        before = chances.cumsum(dim=-1) - chances
        kept = best.masked_fill(before >= self.top_p, float("-inf"))  # the likeliest token always stays
        return torch.full_like(scores, float("-inf")).scatter(-1, places, kept)
