"""LoRA on a Mixtral's experts, in 4 bit and in 16: trained, saved in stock names, loaded by stock PEFT."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_rows import PROBLEM, SHORT, Recorder, job, rows

from reseed.models.adapters import (
    FILES,
    add_adapter,
    attach_adapter,
    check_stock_names,
    continue_adapter,
    save_adapter,
)
from reseed.models.cache import materialise
from reseed.models.loading import load_model
from reseed.models.names import FourBit, ModelSpec, Upcycle
from reseed.records import ReseedError
from reseed.training.loop import train

EXPERTS = ("gate_proj", "up_proj", "down_proj")
ATTENTION = ("q_proj", "v_proj")
IDS = torch.randint(0, 300, (2, 30), generator=torch.Generator().manual_seed(0))


def spec_of(model: Path, **changes: Any) -> ModelSpec:
    spec = ModelSpec(name=str(model), dtype="float32", upcycle=Upcycle(experts=4, top_k=2), separate_experts=True)
    return spec.model_copy(update=changes)


def logits(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        return model.eval()(IDS).logits.float()


def adapted(spec: ModelSpec, **settings: Any) -> Any:
    """A model with an adapter whose every weight is random: PEFT starts lora_B at zero, which would hide mistakes."""
    model = add_adapter(load_model(materialise(spec), spec), SHORT.model_copy(update=settings), seed=3)
    generator = torch.Generator().manual_seed(4)
    for name, parameter in model.named_parameters():
        if ".lora_" in name:
            parameter.data = 0.1 * torch.randn(parameter.shape, generator=generator)
    return model


@pytest.mark.parametrize("targets", [EXPERTS, ("down_proj",), (*ATTENTION, *EXPERTS)])
def test_stock_peft_on_the_stock_model_computes_the_same(tiny_model: Path, tmp_path: Path, targets: Any) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    spec = spec_of(tiny_model)
    model = adapted(spec, targets=targets)
    save_adapter(model, tmp_path / "adapter", "tiny")
    assert sorted(path.name for path in (tmp_path / "adapter").iterdir()) == sorted(FILES)
    check_stock_names(tmp_path / "adapter", materialise(spec))
    stock = AutoModelForCausalLM.from_pretrained(materialise(spec), dtype=torch.float32)
    plain = logits(stock)
    wanted = logits(model)
    assert float((wanted - plain).abs().max()) > 0.05
    assert float((logits(PeftModel.from_pretrained(stock, tmp_path / "adapter")) - wanted).abs().max()) < 1e-4


@pytest.mark.parametrize("four_bit", [None, "nf4"])
def test_a_saved_adapter_comes_back_onto_separate_experts(
    tiny_model: Path, tmp_path: Path, four_bit: FourBit | None
) -> None:
    spec = spec_of(tiny_model, four_bit=four_bit)
    model = adapted(spec, targets=(*ATTENTION, *EXPERTS))
    wanted = logits(model)
    save_adapter(model, tmp_path / "adapter", "tiny")
    fresh = load_model(materialise(spec), spec)
    plain = logits(fresh)
    assert float((plain - wanted).abs().max()) > 0.05
    assert torch.equal(logits(attach_adapter(fresh, tmp_path / "adapter")), wanted)


def test_dropout_of_training_is_no_part_of_the_saved_adapter(tiny_model: Path, tmp_path: Path) -> None:
    model = adapted(spec_of(tiny_model), targets=EXPERTS, dropout=0.1)
    save_adapter(model, tmp_path / "adapter", "tiny")
    written = json.loads((tmp_path / "adapter" / FILES[0]).read_text())
    assert written["lora_dropout"] == 0.0
    assert written["target_modules"] == ["w1", "w2", "w3"]
    assert model.peft_config["default"].lora_dropout == 0.1


def test_a_tensor_that_stock_peft_would_leave_out_is_found(tiny_model: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    spec = spec_of(tiny_model)
    save_adapter(adapted(spec, targets=EXPERTS), tmp_path / "adapter", "tiny")
    path = tmp_path / "adapter" / FILES[1]
    weights = load_file(path)
    save_file({key.replace("layers.1", "layers.7"): tensor for key, tensor in weights.items()}, path)
    with pytest.raises(
        ReseedError, match=r"stock PEFT finds no place, or no tensor, for \d+ names, such as .*layers\."
    ):
        check_stock_names(tmp_path / "adapter", materialise(spec))


def test_rank_stabilised_scaling_survives_the_doubled_rank(tiny_model: Path, tmp_path: Path) -> None:
    from peft import PeftModel

    spec = spec_of(tiny_model)
    model = adapted(spec, targets=EXPERTS, rslora=True, rank=4)
    save_adapter(model, tmp_path / "adapter", "tiny")
    stock = load_model(materialise(spec), spec.model_copy(update={"separate_experts": False}))
    assert float((logits(PeftModel.from_pretrained(stock, tmp_path / "adapter")) - logits(model)).abs().max()) < 1e-4


def test_dora_on_experts_is_refused(tiny_model: Path) -> None:
    with pytest.raises(ReseedError, match="stock PEFT cannot load DoRA onto a mixture's experts"):
        adapted(spec_of(tiny_model), targets=EXPERTS, dora=True)


def test_a_member_goes_on_from_the_experts_of_another(tiny_model: Path, tmp_path: Path) -> None:
    spec = spec_of(tiny_model, four_bit="nf4")
    model = adapted(spec, targets=EXPERTS)
    save_adapter(model, tmp_path / "adapter", "tiny")
    settings = SHORT.model_copy(update={"targets": EXPERTS})
    again = continue_adapter(load_model(materialise(spec), spec), settings, 0, tmp_path / "adapter")
    assert torch.equal(logits(again), logits(model))
    assert any(parameter.requires_grad for name, parameter in again.named_parameters() if ".experts." in name)


def test_one_half_of_a_fused_parameter_is_refused(tiny_model: Path) -> None:
    with pytest.raises(ReseedError, match="up_proj without gate_proj"):
        adapted(spec_of(tiny_model), targets=("up_proj",))


@pytest.mark.parametrize("targets", [ATTENTION, EXPERTS])
@pytest.mark.parametrize("four_bit", [None, "nf4", "nf4-double"])
def test_training_lowers_the_loss(tiny_model: Path, tmp_path: Path, four_bit: FourBit | None, targets: Any) -> None:
    settings = SHORT.model_copy(update={"targets": targets, "epochs": 2})
    what = job(tiny_model, settings=settings)
    what = type(what)(**{**vars(what), "model": spec_of(tiny_model, four_bit=four_bit)})
    watcher = Recorder(tmp_path / "seen")
    summary = train(what, PROBLEM, rows(24), rows(30)[24:], tmp_path / "work", watcher)
    assert summary is not None
    losses = [point.validation for point in summary.curve if point.validation is not None]
    assert losses[-1] < losses[0]
    assert summary.logit_shift > 0
    bits = summary.parameters["experts"].bytes * 8 / summary.parameters["experts"].parameters
    assert bits < 4.65 if four_bit else bits == 32
    assert "experts" in watcher.notes[0]
