"""A whole line in seconds: tiny randomly initialised models, a tokenizer of 300 tokens, and a recipe and profile for them."""

from __future__ import annotations

from pathlib import Path

import yaml

THINGS = ("boat", "hat", "dog", "key", "lamp", "road", "stone", "bread", "letter", "bell", "chair", "apple")
CHAT = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def save_tokenizer(folder: Path, pad_is_eos: bool = True) -> None:
    """Byte-level BPE of 300 tokens; as with SmolLM2, pad is EOS until reseed mends it."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import PreTrainedTokenizerFast

    trained = ByteLevelBPETokenizer()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    trained.train_from_iterator(
        ["Rewrite the text as a poem about the sea."] * 4, vocab_size=300, special_tokens=special
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=trained._tokenizer,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        unk_token="<|endoftext|>",
        pad_token="<|im_end|>" if pad_is_eos else "<|endoftext|>",
    )
    tokenizer.chat_template = CHAT
    tokenizer.save_pretrained(folder)


def save_model(folder: Path, seed: int = 0, width: int = 32) -> Path:
    """A dense Llama of 2 layers and width 32 with its tokenizer, float32."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    save_tokenizer(folder)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config = LlamaConfig(
            vocab_size=300, hidden_size=width, intermediate_size=2 * width, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=1024, tie_word_embeddings=True,
            bos_token_id=1, eos_token_id=2, pad_token_id=2,
        )  # fmt: skip
        LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def save_embedder(folder: Path) -> Path:
    """A sentence-transformers folder: a random BERT of 1 layer and mean pooling."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers import models as parts
    from transformers import BertConfig, BertModel

    inner = folder.parent / f"{folder.name}-bert"
    save_tokenizer(inner, pad_is_eos=False)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = BertConfig(
            vocab_size=300, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64
        )
        BertModel(config).save_pretrained(inner)
    word = parts.Transformer(str(inner), max_seq_length=128)
    SentenceTransformer(modules=[word, parts.Pooling(32)], device="cpu").save(str(folder))
    return folder


def save_profile(folder: Path, store: str, workers: int = 1) -> Path:
    """A profile whose models are tiny; the student is upcycled to a Mixtral of 2 experts."""
    model, embedder = folder / "model", folder / "embedder"
    if not model.exists():
        save_model(model)
    if not embedder.exists():
        save_embedder(embedder)
    path = folder / "tiny.yaml"
    dense = {"name": str(model), "dtype": "float32"}
    roles = {
        "generator": dense,
        "student": {**dense, "upcycle": {"experts": 2, "top_k": 1}},
        "embedder": {"name": str(embedder), "dtype": "float32"},
    }
    profile = {
        "name": "tiny", "store": store, "cpus": 2, "roles": roles, "engines": {"actors": 1, "batch_size": 8},
        "training": {"workers": workers, "micro_batch_size": 4},
    }  # fmt: skip
    path.write_text(yaml.safe_dump(profile))
    return path


def save_recipe(folder: Path, **changes: object) -> Path:
    """A recipe of 48 generated rows, one passage of twelve too long for the model; `changes` replace whole sections."""
    passages = [f"The {thing} lay in the sun and nobody came by before noon." for thing in THINGS]
    passages[5] = " ".join(passages * 3)
    (folder / "passages.txt").write_text("\n".join(passages))
    (folder / "prompts.txt").write_text("\n".join(f"Rewrite this as a letter to the {thing}." for thing in THINGS))
    holdout = {"fraction": 0.2, "group_by": "rewrite_prompt"}
    generation = {"passages": "passages.txt", "prompts": "prompts.txt", "rows": 48, "shard_rows": 8}
    sampling = {"max_new_tokens": 200, "temperature": 1.0, "top_p": 1.0}
    recipe = {
        "name": "tiny",
        "problem": "prompt-recovery",
        "question": "Does anything come out at all?",
        "generation": generation | sampling,
        "data": {"validation": holdout, "test": dict(holdout)},
        "training": {"epochs": 24, "learning_rate": 0.01, "batch_size": 2, "evaluate_every": 9, "max_tokens": 512},
        "prediction": {"max_new_tokens": 8},
        "constants": ["Improve the text to this."],
        "seeds": [0],
        **changes,
    }
    path = folder / "tiny-recipe.yaml"
    path.write_text(yaml.safe_dump({key: value for key, value in recipe.items() if value is not None}))
    return path
