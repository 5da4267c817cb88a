"""DeepSpeed's settings out of a recipe's, and what is refused before anything runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny_rows import SHORT, job

from reseed.models.cache import materialise
from reseed.models.loading import load_model
from reseed.recipe.reading import load_recipe
from reseed.records import ReseedError
from reseed.training.zero.settings import deepspeed_settings


def settings(stage: int, offload: str = "none", dtype: str = "float32") -> dict[str, Any]:
    return deepspeed_settings(SHORT.model_copy(update={"zero_stage": stage, "offload": offload}), dtype)


@pytest.mark.parametrize(
    ("stage", "offload"),
    [(1, "none"), (1, "optimizer"), (2, "none"), (2, "optimizer"), (3, "none"), (3, "optimizer"), (3, "parameters")],
)
def test_deepspeed_takes_the_settings(stage: int, offload: str) -> None:
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig

    zero = DeepSpeedZeroConfig(**settings(stage, offload)["zero_optimization"])
    assert zero.stage == stage
    assert (zero.offload_optimizer is not None) == (offload != "none")
    assert (zero.offload_param is not None) == (offload == "parameters")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_the_number_format_is_the_model_s(dtype: str) -> None:
    made = settings(2, dtype=dtype)
    assert (made["bf16"]["enabled"], made["fp16"]["enabled"]) == (dtype == "bfloat16", dtype == "float16")


@pytest.mark.parametrize("stage", [1, 2])
def test_parameters_are_offloaded_only_where_they_are_sharded(stage: int) -> None:
    with pytest.raises(ReseedError, match=rf"training: offload 'parameters' needs zero_stage 3, .* saw {stage}; set"):
        load_recipe("quickstart", (f"training.zero_stage={stage}", "training.offload=parameters"))
    assert load_recipe("quickstart", ("training.zero_stage=3", "training.offload=parameters")).training.zero_stage == 3


@pytest.mark.parametrize("optimizer", ["adamw-8bit", "paged-adamw-8bit"])
def test_states_in_8_bit_stay_on_the_gpu(optimizer: str) -> None:
    message = (
        rf"training: offload 'optimizer' steps the optimiser on the CPU, where optimizer '{optimizer}' does not run"
    )
    with pytest.raises(ReseedError, match=message):
        load_recipe("quickstart", (f"training.optimizer={optimizer}", "training.offload=optimizer"))


def test_no_stored_optimiser_under_zero_3() -> None:
    with pytest.raises(ReseedError, match=r"training: keep_optimizer stores .* zero_stage 3 holds nowhere; set"):
        load_recipe("quickstart", ("training.zero_stage=3", "training.keep_optimizer=true"))


@pytest.mark.parametrize("separate", [False, True])
def test_sparse_blocks_are_gathered_whole(tiny_model: Path, separate: bool) -> None:
    """Ranks that route differently would otherwise wait for each other's experts (DeepSpeed#4808)."""
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig
    from deepspeed.utils import get_z3_leaf_modules
    from deepspeed.utils.z3_leaf_module import apply_zero_leaf_module_config

    spec = job(tiny_model).model
    folder = materialise(spec)
    model = load_model(folder, spec.model_copy(update={"separate_experts": separate}))
    apply_zero_leaf_module_config(model, DeepSpeedZeroConfig(**settings(3)["zero_optimization"]).leaf_module)
    assert get_z3_leaf_modules(model) == [layer.mlp for layer in model.model.layers]
