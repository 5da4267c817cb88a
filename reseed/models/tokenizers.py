"""Tokenizers whose models can stop: with a pad token that is not EOS, from the vocabulary that the model has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from reseed.mistakes import first_line
from reseed.records import ReseedError

PAD_NAMES = ("<pad>", "<|pad|>", "[PAD]", "<|finetune_right_pad_id|>", "<|endoftext|>", "<unk>")


def load_tokenizer(folder: str | Path) -> Any:
    """Load a tokenizer, with a pad token that differs from EOS. It is one of the vocabulary, so nothing is resized."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise ReseedError(f"tokenizer of {Path(folder).name}: it cannot be loaded: {first_line(error)}") from error
    if tokenizer.eos_token_id is None:
        raise ReseedError(f"tokenizer of {Path(folder).name}: it has no EOS token, so generation could never stop")
    if tokenizer.pad_token_id in (None, tokenizer.eos_token_id):
        tokenizer.pad_token = distinct_pad_token(tokenizer)
    return tokenizer


def distinct_pad_token(tokenizer: Any) -> str:
    """A token of the vocabulary to pad with: one meant for it, or one that occurs in no text.

    A pad token equal to EOS hides EOS from the loss, and the trained model never stops (trl#976).
    """
    vocabulary = tokenizer.get_vocab()
    taken = {tokenizer.eos_token, tokenizer.bos_token}
    for name in (*PAD_NAMES, tokenizer.unk_token):
        if name is not None and name in vocabulary and name not in taken:
            return str(name)
    ordered = sorted(vocabulary, key=vocabulary.__getitem__)
    reserved = [token for token in ordered if "reserved" in token and token.startswith(("<", "["))]
    if reserved:
        return str(reserved[0])
    raise ReseedError(
        f"tokenizer: no token of its vocabulary can pad (tried {', '.join(PAD_NAMES)}); "
        "add a <pad> token to the model's tokenizer and resize its embeddings first"
    )
