"""Examples to batches: what is padded, and what the padding is labelled."""

from __future__ import annotations

from pathlib import Path

import torch
from tiny_rows import PROBLEM, rows

from reseed.language.tokens import IGNORED, Example, encode
from reseed.models.tokenizers import load_tokenizer
from reseed.training.layout import collate


def test_collate_pads_on_the_right() -> None:
    batch = collate([Example((5, 6, 7), (IGNORED, 6, 7)), Example((8,), (8,))], pad=9)
    assert batch["input_ids"].tolist() == [[5, 6, 7], [8, 9, 9]]
    assert batch["labels"].tolist() == [[IGNORED, 6, 7], [8, IGNORED, IGNORED]]
    assert {tensor.dtype for tensor in batch.values()} == {torch.int64}


def test_collate_keeps_eos_among_the_labels(tiny_model: Path) -> None:
    tokenizer = load_tokenizer(tiny_model)
    examples = encode(PROBLEM, rows(5), tokenizer, 4096, "completion").examples
    batch = collate(examples, tokenizer.pad_token_id)
    assert ((batch["labels"] == tokenizer.eos_token_id).sum(dim=1) == 1).all()
    lengths = torch.tensor([len(example.ids) for example in examples])
    padding = torch.arange(batch["input_ids"].shape[1]) >= lengths[:, None]
    assert ((batch["input_ids"] == tokenizer.pad_token_id) == padding).all()
    assert (batch["labels"][padding] == IGNORED).all()
