"""Nucleus sampling keeps what transformers' own warpers keep, with the same probabilities."""

from __future__ import annotations

import pytest
import torch
from transformers import TemperatureLogitsWarper, TopPLogitsWarper

from reseed.language.nucleus import LIKELIEST, Nucleus

WORDS = 1000
NO_IDS = torch.zeros((1, 0), dtype=torch.long)


def rows(spread: float, count: int = 16, seed: int = 0) -> torch.Tensor:
    """Random logits; a large `spread` makes peaked rows."""
    return torch.randn(count, WORDS, generator=torch.Generator().manual_seed(seed)) * spread


def of_transformers(scores: torch.Tensor, temperature: float, top_p: float) -> torch.Tensor:
    return TopPLogitsWarper(top_p)(NO_IDS, TemperatureLogitsWarper(temperature)(NO_IDS, scores))


def mass_of_likeliest(scores: torch.Tensor, temperature: float) -> torch.Tensor:
    return (scores / temperature).softmax(-1).topk(LIKELIEST).values.sum(-1)


def assert_same(scores: torch.Tensor, temperature: float, top_p: float) -> torch.Tensor:
    ours = Nucleus(temperature, top_p)(NO_IDS, scores.clone())
    wanted = of_transformers(scores.clone(), temperature, top_p)
    assert torch.equal(ours.isfinite(), wanted.isfinite())
    torch.testing.assert_close(ours.softmax(-1), wanted.softmax(-1), rtol=1e-5, atol=1e-8)
    return ours.isfinite().sum(-1)


@pytest.mark.parametrize("top_p", [0.05, 0.5, 0.9, 0.95])
@pytest.mark.parametrize("temperature", [0.3, 0.8, 1.0])
def test_peaked_rows_need_no_sorting(temperature: float, top_p: float) -> None:
    scores = rows(6.0)
    assert bool((mass_of_likeliest(scores, temperature) >= top_p).all()), "the short way is the one that is tested"
    kept = assert_same(scores, temperature, top_p)
    assert int(kept.max()) < LIKELIEST


@pytest.mark.parametrize("top_p", [0.5, 0.9, 0.95, 0.999])
@pytest.mark.parametrize("temperature", [0.8, 1.0, 2.0])
def test_flat_rows_are_sorted(temperature: float, top_p: float) -> None:
    scores = rows(0.3)
    assert bool((mass_of_likeliest(scores, temperature) < top_p).any()), "the long way is the one that is tested"
    kept = assert_same(scores, temperature, top_p)
    assert int(kept.min()) > LIKELIEST


@pytest.mark.parametrize("top_p", [0.4, 0.9, 0.95])
def test_peaked_and_flat_rows_in_one_batch(top_p: float) -> None:
    assert_same(torch.cat([rows(6.0, 4), rows(0.3, 4), rows(2.0, 4)]), 0.8, top_p)


def test_the_nucleus_of_a_row_does_not_depend_on_its_neighbours() -> None:
    peaked, flat = rows(6.0, 1), rows(0.3, 1)
    alone = Nucleus(0.8, 0.9)(NO_IDS, peaked.clone())
    beside = Nucleus(0.8, 0.9)(NO_IDS, torch.cat([peaked, flat]))[:1]
    assert torch.equal(alone.isfinite(), beside.isfinite())
    torch.testing.assert_close(alone, beside)


def test_the_likeliest_token_always_stays() -> None:
    scores = rows(1.0)
    kept = Nucleus(1.0, 1e-6)(NO_IDS, scores.clone()).isfinite()
    assert (kept.sum(-1) == 1).all()
    assert torch.equal(kept.float().argmax(-1), scores.argmax(-1))


def test_top_p_one_keeps_everything_and_its_probabilities() -> None:
    scores = rows(6.0)
    ours = Nucleus(0.7, 1.0)(NO_IDS, scores.clone())
    assert bool(ours.isfinite().all())
    torch.testing.assert_close(ours, scores / 0.7)


def test_a_vocabulary_smaller_than_the_short_way() -> None:
    scores = rows(1.0)[:, :100]
    assert_same(scores, 0.8, 0.9)


def test_tokens_that_are_out_stay_out() -> None:
    scores = rows(1.0)
    scores[:, ::2] = float("-inf")
    ours = Nucleus(0.8, 0.95)(NO_IDS, scores.clone())
    assert not bool(ours[:, ::2].isfinite().any())
    assert_same(scores, 0.8, 0.95)
