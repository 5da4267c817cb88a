"""Adapters out of the store: as two files, or merged into the 16-bit base."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from plain_step import plain_step
from tiny import save_model

from reseed.export import export_adapter, merge_adapter
from reseed.models.adapters import FILES, add_adapter, save_adapter
from reseed.models.cache import materialise
from reseed.models.loading import load_model
from reseed.models.names import ModelSpec, Upcycle, identity
from reseed.records import Artifact, ReseedError
from reseed.settings import TrainingSettings
from reseed.steps.stored_adapters import find_adapter
from reseed.store.artifacts import ArtifactStore

IDS = torch.randint(0, 300, (2, 30), generator=torch.Generator().manual_seed(0))
EXPERTS = ("q_proj", "gate_proj", "up_proj", "down_proj")


def logits(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        return model.eval()(IDS).logits.float()


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RESEED_CACHE", str(tmp_path / "cache"))
    return save_model(tmp_path / "base")


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(str(tmp_path / "store"))


def stored(store: ArtifactStore, base: Path, scale: float = 0.1, **changes: Any) -> tuple[Artifact, torch.Tensor]:
    """A trained adapter in the store, and the logits of the model that was trained."""
    spec = ModelSpec(name=str(base), dtype="float32", upcycle=Upcycle(experts=4, top_k=2), separate_experts=True)
    spec = spec.model_copy(update=changes)
    model = add_adapter(load_model(materialise(spec), spec), TrainingSettings(targets=EXPERTS), seed=0)
    generator = torch.Generator().manual_seed(4)
    for name, parameter in model.named_parameters():
        if ".lora_" in name:
            parameter.data = scale * torch.randn(parameter.shape, generator=generator)
    save_adapter(model, base.parent / "best" / "adapter", spec.name)
    step = plain_step("train", 1, "adapter", "tiny-default", {"model": identity(spec), "scale": scale}, seed=0)
    return store.write(step, base.parent / "best"), logits(model)


def test_an_exported_adapter_is_two_files_that_stock_peft_loads(store: ArtifactStore, base: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    artifact, wanted = stored(store, base)
    target = base.parent / "out"
    assert export_adapter(store, artifact, target) == sorted(FILES)
    spec = ModelSpec(name=str(base), upcycle=Upcycle(experts=4, top_k=2))
    stock = AutoModelForCausalLM.from_pretrained(materialise(spec), dtype=torch.float32)
    assert float((logits(PeftModel.from_pretrained(stock, target)) - wanted).abs().max()) < 1e-4


def test_stock_peft_loads_it_onto_a_stock_4_bit_model_too(store: ArtifactStore, base: Path) -> None:
    """There the attention is in 4 bit and the experts are not: the adapter moves the logits as it does in 16 bit."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    artifact, adapted = stored(store, base)
    export_adapter(store, artifact, base.parent / "out")
    folder = materialise(ModelSpec(name=str(base), upcycle=Upcycle(experts=4, top_k=2)))
    plain = logits(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32))
    four_bit = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32)
    stock = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, quantization_config=four_bit)
    for module in stock.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):  # its packed format needs wider layers than these
            module.support_avx512bf16_for_cpu = False
    before = logits(stock)
    moved = logits(PeftModel.from_pretrained(stock, base.parent / "out")) - before
    wanted = adapted - plain
    assert torch.nn.functional.cosine_similarity(moved.flatten(), wanted.flatten(), dim=0) > 0.9


@pytest.mark.parametrize("four_bit", [None, "nf4"])
def test_merging_gives_a_model_that_needs_no_adapter(store: ArtifactStore, base: Path, four_bit: Any) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    artifact, wanted = stored(store, base, four_bit=four_bit)
    found = merge_adapter(store, artifact, base.parent / "merged", base=str(base))
    assert found.merge_error < 1e-4 < found.adapter_shift
    merged = AutoModelForCausalLM.from_pretrained(base.parent / "merged", dtype=torch.float32)
    assert type(merged).__name__ == "MixtralForCausalLM"
    assert AutoTokenizer.from_pretrained(base.parent / "merged").eos_token == "<|im_end|>"
    if four_bit is None:
        assert float((logits(merged) - wanted).abs().max()) < 1e-4
    else:  # into the 16-bit base, not into what 4 bits left of it
        spec = ModelSpec(name=str(base), dtype="float32", upcycle=Upcycle(experts=4, top_k=2))
        from peft import PeftModel

        whole = load_model(materialise(spec), spec)
        adapted = PeftModel.from_pretrained(whole, store.fetch(artifact) / "adapter")
        assert float((logits(merged) - logits(adapted)).abs().max()) < 1e-4


def test_a_change_that_16_bits_cannot_hold_is_not_merged(store: ArtifactStore, base: Path) -> None:
    artifact, _ = stored(store, base, scale=0.004, dtype="bfloat16")
    with pytest.raises(ReseedError, match="in bfloat16 the change is lost, export the adapter without --merge"):
        merge_adapter(store, artifact, base.parent / "merged", base=str(base))
    assert not (base.parent / "merged").exists()


def test_the_base_must_be_the_one_that_was_trained(store: ArtifactStore, base: Path, tmp_path: Path) -> None:
    artifact, _ = stored(store, base)
    with pytest.raises(ReseedError, match="name it with --base FOLDER"):
        merge_adapter(store, artifact, tmp_path / "merged")
    other = save_model(tmp_path / "other", seed=1)
    with pytest.raises(ReseedError, match="was trained on local:"):
        merge_adapter(store, artifact, tmp_path / "merged", base=str(other))


def test_nothing_is_written_over(store: ArtifactStore, base: Path) -> None:
    artifact, _ = stored(store, base)
    with pytest.raises(ReseedError, match="already exists"):
        export_adapter(store, artifact, base)


def test_an_adapter_is_found_by_the_beginning_of_its_key(store: ArtifactStore, base: Path) -> None:
    artifact, _ = stored(store, base)
    assert find_adapter(store, str(artifact)) == artifact
    assert find_adapter(store, artifact.path) == artifact
    with pytest.raises(ReseedError, match=f"its keys are {artifact.key[:12]}"):
        find_adapter(store, "adapter/tiny-default/zzz")
    with pytest.raises(ReseedError, match="did you mean 'tiny-default'"):
        find_adapter(store, "adapter/tiny-defualt/abc")
    with pytest.raises(ReseedError, match="wanted adapter/NAME/KEY"):
        find_adapter(store, "tiny-default")
