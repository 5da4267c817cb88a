"""A tiny model whose greedy text depends on the whole prompt; one with tied random weights only repeats the last token."""

from __future__ import annotations

from pathlib import Path

import torch
from tiny import save_tokenizer
from transformers import LlamaConfig, LlamaForCausalLM


def save_talker(folder: Path) -> Path:
    """A dense Llama of 2 layers and width 32 with large random weights, and its tokenizer, float32."""
    save_tokenizer(folder)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=300, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=1024, tie_word_embeddings=False, initializer_range=0.3,
            bos_token_id=1, eos_token_id=2, pad_token_id=2,
        )  # fmt: skip
        LlamaForCausalLM(config).save_pretrained(folder)
    return folder
