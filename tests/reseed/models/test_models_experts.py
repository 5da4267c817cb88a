"""A Mixtral whose experts are Linear modules computes what the stock one does, and can be held in 4 bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import save_model

from reseed.models.cache import materialise
from reseed.models.loading import load_model
from reseed.models.names import ModelSpec, Upcycle
from reseed.models.sizes import Size, sizes, sizes_text
from reseed.records import ReseedError

IDS = torch.randint(0, 300, (3, 40), generator=torch.Generator().manual_seed(0))


@pytest.fixture
def spec(tiny_model: Path, cache: Path) -> ModelSpec:
    return ModelSpec(name=str(tiny_model), dtype="float32", upcycle=Upcycle(experts=4, top_k=2))


def loaded(spec: ModelSpec, **changes: Any) -> Any:
    return load_model(materialise(spec), spec.model_copy(update=changes)).eval()


def logits(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        return model(IDS).logits.float()


def by_group(model: Any) -> dict[str, Size]:
    return {group.name: group for group in sizes(model)}


def disturb(model: Any) -> None:
    """Make the experts of an upcycled model differ, which start as copies of one another."""
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if ".experts." in name:
            parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)


def test_separate_experts_compute_what_the_stock_experts_do(spec: ModelSpec, tmp_path: Path) -> None:
    stock = loaded(spec)
    disturb(stock)
    stock.save_pretrained(tmp_path / "different")  # the hub's layout: w1, w2, w3 of every expert
    same = ModelSpec(name=str(tmp_path / "different"), dtype="float32")
    (tmp_path / "different" / "tokenizer.json").touch()
    separate = load_model(tmp_path / "different", same.model_copy(update={"separate_experts": True})).eval()
    assert [type(m).__name__ for m in separate.model.layers[0].mlp.experts] == ["Expert"] * 4
    assert float((logits(stock) - logits(separate)).abs().max()) < 1e-5
    assert float(logits(stock).abs().max()) > 0.1


def test_an_expert_that_no_token_chose_gets_a_zero_gradient_and_not_none(spec: ModelSpec) -> None:
    experts = loaded(spec, separate_experts=True).model.layers[0].mlp.experts
    chosen = torch.tensor([[0, 1], [1, 2], [0, 2]])
    experts(torch.randn(3, 32), chosen, torch.full((3, 2), 0.5)).sum().backward()
    gradients = [expert.down_proj.weight.grad for expert in experts]
    assert all(gradient is not None for gradient in gradients)
    assert [float(gradient.abs().max()) > 0 for gradient in gradients] == [True, True, True, False]


def test_experts_attention_take_four_and_a_half_bits_and_the_rest_stays(spec: ModelSpec) -> None:
    before, after = by_group(loaded(spec, dtype="bfloat16")), by_group(loaded(spec, dtype="bfloat16", four_bit="nf4"))
    assert {name: group.parameters for name, group in before.items()} == {n: g.parameters for n, g in after.items()}
    for name in ("experts", "attention"):
        assert after[name].bytes == pytest.approx(0.28125 * before[name].bytes)
    for name in ("router", "embeddings", "norms"):
        assert after[name].bytes == before[name].bytes


def test_double_quantisation_takes_less(spec: ModelSpec) -> None:
    once, twice = by_group(loaded(spec, four_bit="nf4")), by_group(loaded(spec, four_bit="nf4-double"))
    assert twice["experts"].bytes < 0.95 * once["experts"].bytes


@pytest.mark.parametrize("four_bit", ["nf4", "nf4-double"])
def test_every_expert_holds_the_bits_of_the_dense_layer_that_it_was_copied_from(spec: ModelSpec, four_bit: str) -> None:
    from bitsandbytes.functional import dequantize_4bit

    sparse = loaded(spec, four_bit=four_bit)
    dense = loaded(spec.model_copy(update={"upcycle": None}), four_bit=four_bit)
    for number, layer in enumerate(dense.model.layers):
        for name in ("gate_proj", "up_proj", "down_proj"):
            wanted = getattr(layer.mlp, name).weight
            for expert in sparse.model.layers[number].mlp.experts:
                weight = getattr(expert, name).weight
                assert torch.equal(weight.data, wanted.data)
                assert torch.equal(
                    dequantize_4bit(weight.data, weight.quant_state), dequantize_4bit(wanted.data, wanted.quant_state)
                )
    assert float((logits(sparse) - logits(dense)).abs().max()) < 1e-5


def test_an_evaluation_leaves_the_gradient_alone(spec: ModelSpec, tmp_path: Path) -> None:
    """On a CPU with AVX-512 bf16, bitsandbytes would pack the weights for a kernel without one, if layers are wide."""
    wide = spec.model_copy(update={"name": str(save_model(tmp_path / "wide", width=64))})
    model = loaded(wide, dtype="bfloat16", four_bit="nf4")

    def gradient() -> torch.Tensor:
        given = model.get_input_embeddings()(IDS).detach().requires_grad_(True)
        model.train()
        model(inputs_embeds=given).logits.float().pow(2).sum().backward()
        model.eval()
        return given.grad

    before = gradient()
    logits(model)
    after = gradient()
    assert float(before.abs().max()) > 0
    assert torch.equal(before, after)


def test_a_model_whose_experts_stay_in_16_bit_is_refused(spec: ModelSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stock transformers + bitsandbytes (bitsandbytes#1849), as it would come back if the loading were changed."""
    from transformers import AutoModelForCausalLM

    monkeypatch.setattr(
        "reseed.models.experts.load_separate",
        lambda folder, family, **options: AutoModelForCausalLM.from_pretrained(folder, **options),
    )
    with pytest.raises(ReseedError, match=r"its experts take 32\.0 bits a weight, wanted 4\.65"):
        loaded(spec, four_bit="nf4")


def test_sizes_are_written_for_people() -> None:
    assert sizes_text([Size("experts", 2_000_000, 1_125_000)]) == "experts 2.0 M in 1.1 MB (4.5 bits)"


def test_a_dense_model_is_quantised_too(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "dense")
    model = load_model(folder, ModelSpec(name=str(folder), dtype="float32", four_bit="nf4"))
    assert by_group(model)["mlp"].bytes * 8 == pytest.approx(4.5 * by_group(model)["mlp"].parameters)
