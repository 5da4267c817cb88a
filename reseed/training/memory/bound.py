"""An upper bound of what training takes, from a model's config alone and at once: torch is not imported.

What fits by this bound needs no plan, which takes seconds. It is generous on purpose:
about twice the plan's activations, all weights as they are before ZeRO shards them, nothing offloaded.
"""

from __future__ import annotations

from typing import Any

from reseed.models.names import ModelSpec
from reseed.settings import TrainingSettings
from reseed.training.zero.settings import BUCKET, LIVE

NUMBERS = {"hidden_size", "num_hidden_layers", "vocab_size", "intermediate_size", "num_attention_heads"}
# Family → the keys that its config must have besides NUMBERS, because their defaults differ. Not Gemma 2, whose eager
# attention keeps the scores of all pairs of tokens.
KNOWN: dict[str, set[str]] = {
    "llama": set(),
    "mistral": set(),
    "qwen2": set(),
    "qwen3": {"head_dim"},
    "gemma": {"head_dim"},
    "mixtral": {"num_local_experts", "num_experts_per_tok"},
}
ITEMSIZE = {"bfloat16": 2, "float16": 2, "float32": 4}


def upper_bound(
    shape: dict[str, Any], spec: ModelSpec, settings: TrainingSettings, rows: int, labels: int
) -> int | None:
    """The bound for one rank in bytes, on the card or offloaded; None for a family whose layers are not known here."""
    family = shape.get("model_type")
    if family not in KNOWN or not NUMBERS | KNOWN[family] <= shape.keys():
        return None
    width, layers, vocabulary = shape["hidden_size"], shape["num_hidden_layers"], shape["vocab_size"]
    inner, heads = shape["intermediate_size"], shape["num_attention_heads"]
    size = shape.get("head_dim") or width // heads
    queries, keys = heads * size, (shape.get("num_key_value_heads") or heads) * size
    experts, chosen = shape.get("num_local_experts", 1), shape.get("num_experts_per_tok", 1)
    sides = {"q_proj": (width, queries), "k_proj": (width, keys), "v_proj": (width, keys), "o_proj": (queries, width)}
    mlp = {"gate_proj": (width, inner), "up_proj": (width, inner), "down_proj": (inner, width)}

    item, wide = ITEMSIZE[spec.dtype], 4
    packed = item if spec.four_bit is None else 0.5 + wide / 64  # with a scale for 64 weights
    in_layer = sum(a * b for a, b in sides.values()) + experts * sum(a * b for a, b in mlp.values())
    weights = layers * (in_layer * packed + (experts + 8) * width * wide) + 2 * vocabulary * width * item

    pairs = [sides[name] for name in settings.targets if name in sides]
    pairs += [mlp[name] for name in settings.targets if name in mlp for _ in range(experts)]
    trained = layers * sum(settings.rank * (a + b) + b for a, b in pairs)
    states = 32 * trained + wide * BUCKET  # the adapter, its gradients twice, a copy, two moments, all in 32 bit

    read = sum(sides[name][0] for name in settings.targets if name in sides)
    read += chosen * sum(mlp[name][0] for name in settings.targets if name in mlp)
    masks = 3 if settings.dropout else 1
    lora = masks * read + settings.rank * len(settings.targets) * chosen  # in 32 bit
    kept = 8 * width + 4 * (queries + 2 * keys) + chosen * (6 * inner + 3 * width)
    tokens = rows * settings.max_tokens
    layer = tokens * (item * kept + wide * (4 * width + lora + 8 * experts))
    head = rows * labels * (vocabulary * 4 * wide + 8 * width * wide)
    activations = layer + layers * tokens * width * wide if settings.gradient_checkpointing else layers * layer
    gathered = weights + LIVE * item + 2 * in_layer * item if settings.zero_stage == 3 else 0
    return int(weights + states + activations + head + gathered)
