"""DeepSpeed's settings, generated: there is no JSON file that could disagree with the recipe."""

from __future__ import annotations

from typing import Any

from reseed.settings import TrainingSettings

BUCKET = 20_000_000  # elements; DeepSpeed's default of 500 million reserves a gigabyte, an adapter has a few million
LIVE = 1_000_000_000  # elements, DeepSpeed's default: ZeRO-3 releases no weight that is needed again within so many
# Buffers that transformers keeps in 32 bit whatever the model's dtype: rotary frequencies, and the routing bias of mixtures
# such as GLM's. This list replaces the one that DeepSpeed finds in the model's class, so it names both.
IN_32_BIT = ["inv_freq", "e_score_correction_bias"]
TO_CPU = {"device": "cpu", "pin_memory": True}


def deepspeed_settings(settings: TrainingSettings, dtype: str) -> dict[str, Any]:
    """The configuration for transformers' Trainer, which fills in what is `auto`.

    Mixtral's sparse blocks need no mention: DeepSpeed treats them as leaf modules, whose experts are gathered together,
    or ranks that route differently would wait for each other forever (DeepSpeed#4808).
    """
    stage, offload = settings.zero_stage, settings.offload
    return {
        "zero_optimization": {
            "stage": stage,
            "contiguous_gradients": True,
            "overlap_comm": stage == 3,  # weights are fetched while the layer before computes
            "reduce_bucket_size": BUCKET,
            "allgather_bucket_size": BUCKET,
            **({"offload_optimizer": dict(TO_CPU)} if offload != "none" else {}),
            **({"offload_param": dict(TO_CPU)} if offload == "parameters" else {}),
            **(sharding_settings() if stage == 3 else {}),
        },
        "zero_allow_untested_optimizer": True,
        # torch's AdamW, fused on the CPU too, steps offloaded states: DeepSpeed's own has to be compiled on every machine.
        "zero_force_ds_cpu_optimizer": False,
        "data_types": data_types(stage),
        "bf16": {"enabled": dtype == "bfloat16"},
        "fp16": {"enabled": dtype == "float16"},
        "train_batch_size": "auto",
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
        "gradient_clipping": "auto",
        "steps_per_print": 1_000_000,
    }


def data_types(stage: int) -> dict[str, Any]:
    """Where DeepSpeed must not use the model's own dtype.

    `zero.Init` rounds every buffer that is created inside it: without the list, ZeRO-3 would train with other positions
    than the model answers with. Gradients are accumulated in 32 bit from stage 2 on; in stage 1 with bfloat16, DeepSpeed
    would switch to another optimiser, whose states `keep_optimizer` cannot read.
    """
    accumulation = {"grad_accum_dtype": "fp32"} if stage > 1 else {}
    return {"keep_in_fp32_modules": IN_32_BIT, **accumulation}


def join_ranks() -> None:
    """Start the process group early: ZeRO-3 shards the model while it loads, before DeepSpeed would start one itself."""
    import deepspeed

    deepspeed.init_distributed(auto_mpi_discovery=False, verbose=False)


def sharding_settings() -> dict[str, Any]:
    """What only ZeRO-3 needs, sized by the model's width: DeepSpeed's own defaults would never shard a tiny model."""
    return {
        "stage3_prefetch_bucket_size": "auto",
        "stage3_param_persistence_threshold": "auto",
        "stage3_max_live_parameters": LIVE,
        "stage3_max_reuse_distance": LIVE,
    }


def persistence_threshold(width: int) -> int:
    """The size in elements up to which ZeRO-3 keeps a weight whole on every rank: what transformers makes of `auto`."""
    return 10 * width
