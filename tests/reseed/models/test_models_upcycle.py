"""Upcycling: a dense model and its Mixtral compute the same function."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    set_seed,
)

from reseed.models.cache import materialise
from reseed.models.loading import load_model
from reseed.models.names import ModelSpec, Upcycle
from reseed.models.upcycle import upcycle
from reseed.records import ReseedError

SMALL: dict[str, Any] = {
    "vocab_size": 120,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "initializer_range": 0.2,  # so that logits are large enough for a difference to show
}


def llama(**changes: Any) -> Any:
    set_seed(0)
    return LlamaForCausalLM(LlamaConfig(**{**SMALL, **changes})).eval()


def mistral(**changes: Any) -> Any:
    set_seed(0)
    return MistralForCausalLM(MistralConfig(**{**SMALL, **changes})).eval()


def largest_difference(one: Any, other: Any, length: int = 40) -> float:
    """Over two rows, one of them padded on the left."""
    ids = torch.randint(3, one.config.vocab_size, (2, length), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[1, :7] = 0
    with torch.inference_mode():
        logits = [model.eval()(ids, attention_mask=mask).logits.float() for model in (one, other)]
    assert float(logits[0].std()) > 0.1
    seen = mask.bool()
    return float((logits[0] - logits[1]).abs()[seen].max())


@pytest.mark.parametrize(("experts", "top_k"), [(2, 1), (4, 2), (3, 3), (8, 2)])
@pytest.mark.parametrize(
    "dense",
    [
        lambda: llama(),
        lambda: llama(tie_word_embeddings=True, head_dim=16),
        lambda: llama(
            rope_parameters={
                "rope_type": "llama3",
                "rope_theta": 1e5,
                "factor": 4.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 64,
            }
        ),
        lambda: mistral(sliding_window=None),
        lambda: mistral(sliding_window=8),
    ],
    ids=["llama", "llama-tied", "llama-long-rope", "mistral", "mistral-window"],
)
def test_logits_stay(dense: Any, experts: int, top_k: int) -> None:
    model = dense()
    sparse = upcycle(model, Upcycle(experts=experts, top_k=top_k))
    assert (sparse.config.num_local_experts, sparse.config.num_experts_per_tok) == (experts, top_k)
    assert sparse.config.model_type == "mixtral"
    assert largest_difference(model, sparse) < 1e-3


def test_the_whole_way_through_the_cache(tiny_model: Path, cache: Path) -> None:
    dense = ModelSpec(name=str(tiny_model), dtype="float32")
    sparse = ModelSpec(name=str(tiny_model), dtype="float32", upcycle=Upcycle(experts=3, top_k=2))
    folder = materialise(sparse)
    model = load_model(folder, sparse)
    assert type(model).__name__ == "MixtralForCausalLM"
    assert model.config._experts_implementation == "grouped_mm"
    assert largest_difference(load_model(tiny_model, dense), model) < 1e-3
    assert (folder / "tokenizer.json").read_bytes() == (tiny_model / "tokenizer.json").read_bytes()
    assert model.generation_config.eos_token_id == 2


def router(model: Any) -> torch.Tensor:
    return torch.stack([layer.mlp.gate.weight.detach() for layer in model.model.layers])


def test_the_router_comes_from_the_seed_alone() -> None:
    model = llama()
    first = router(upcycle(model, Upcycle(seed=3)))
    torch.manual_seed(12345)
    state = torch.get_rng_state()
    assert torch.equal(router(upcycle(model, Upcycle(seed=3))), first)
    assert torch.equal(torch.get_rng_state(), state), "nobody else's random numbers change"
    assert not torch.equal(router(upcycle(model, Upcycle(seed=4))), first)
    assert float(first.abs().min(dim=-1).values.max()) > 0


def test_the_dtype_stays() -> None:
    sparse = upcycle(llama().to(torch.bfloat16), Upcycle())
    assert {p.dtype for p in sparse.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize(
    ("dense", "said"),
    [
        (lambda: GPT2LMHeadModel(GPT2Config(vocab_size=50, n_embd=8, n_layer=1, n_head=1)), "a gpt2 model"),
        (lambda: Qwen2ForCausalLM(Qwen2Config(**SMALL)), "a qwen2 model"),
        (lambda: llama(attention_bias=True), "attention bias"),
        (lambda: llama(mlp_bias=True), "MLP bias"),
    ],
    ids=["gpt2", "qwen2", "attention-bias", "mlp-bias"],
)
def test_another_family_is_refused(dense: Any, said: str) -> None:
    with pytest.raises(ReseedError, match="wanted one of llama, mistral without biases") as caught:
        upcycle(dense(), Upcycle())
    assert said in str(caught.value)


def test_a_refused_model_leaves_nothing_in_the_cache(tmp_path: Path, cache: Path) -> None:
    Qwen2ForCausalLM(Qwen2Config(**SMALL)).save_pretrained(tmp_path / "qwen")
    with pytest.raises(ReseedError, match="a qwen2 model cannot become a Mixtral"):
        materialise(ModelSpec(name=str(tmp_path / "qwen"), upcycle=Upcycle()))
    assert list((cache / "models").iterdir()) == []
