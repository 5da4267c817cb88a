"""DeepSpeed's settings, generated: there is no JSON file that could disagree with the recipe."""

from __future__ import annotations

from typing import Any

BUCKET = 20_000_000  # elements; DeepSpeed's default of 500 million reserves a gigabyte, an adapter has a few million


def deepspeed_settings(zero_stage: int, bf16: bool) -> dict[str, Any]:
    """A configuration for transformers' Trainer, which fills in what is `auto`."""
    return {
        "zero_optimization": {
            "stage": zero_stage,
            "contiguous_gradients": True,
            "overlap_comm": False,
            "reduce_bucket_size": BUCKET,
            "allgather_bucket_size": BUCKET,
        },
        "zero_allow_untested_optimizer": True,
        "bf16": {"enabled": bf16},
        "train_batch_size": "auto",
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
        "gradient_clipping": "auto",
        "steps_per_print": 1_000_000,
    }
