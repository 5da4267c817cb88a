"""Models from a hub: no pickle is loaded as such, and a tokenizer costs no weights."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import torch
from hub_server import Hub, hub_of
from safetensors.torch import load_file
from tiny import save_embedder

from reseed.language.embedding import load_embedder
from reseed.models.cache import dense_folder, tokenizer_folder
from reseed.models.configs import fetched_config
from reseed.models.names import ModelSpec, Upcycle
from reseed.models.tokenizers import load_tokenizer
from reseed.records import ReseedError

NAME = "reseed-tests/model"


def ask(hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Make `hub` this process's hub, with an empty cache."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    template = f"{hub.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on the hub's own cache must do; nobody waits for its retries."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


class Evil:
    """A pickle of it writes a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (self.path,)


def dense_embedder(folder: Path) -> Path:
    """An embedder whose last module has its weights as a pickle only, as sentence-T5's on the hub."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Dense

    save_embedder(folder)
    model = SentenceTransformer(str(folder), device="cpu")
    model.append(Dense(32, 8))
    model.save(str(folder))
    weights = folder / "2_Dense" / "model.safetensors"
    torch.save(load_file(weights), weights.with_name("pytorch_model.bin"))
    weights.unlink()
    return folder


def test_a_pickled_module_becomes_safetensors_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    source = dense_embedder(tmp_path / "source")
    (source / "pytorch_model.bin").write_bytes(b"never asked for")
    (source / "2_Dense" / "code.py").write_text("raise SystemExit")
    with hub_of(NAME, source) as hub:
        ask(hub, monkeypatch, tmp_path)
        vectors = load_embedder(ModelSpec(name=NAME, dtype="float32"))(["a boat", "a hat"])
        assert vectors.shape == (2, 8)
        folder = dense_folder(NAME)
    assert [name for name in hub.given if name.endswith((".bin", ".py"))] == ["2_Dense/pytorch_model.bin"]
    assert load_file(folder / "2_Dense" / "model.safetensors").keys() == {"linear.weight", "linear.bias"}
    gone(monkeypatch)
    assert dense_folder(NAME) == folder


def test_a_pickle_that_runs_code_does_not(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    source = dense_embedder(tmp_path / "source")
    torch.save({"linear.weight": Evil(tmp_path / "ran")}, source / "2_Dense" / "pytorch_model.bin")
    with hub_of(NAME, source) as hub:
        ask(hub, monkeypatch, tmp_path)
        with pytest.raises(ReseedError, match=r"2_Dense/pytorch_model\.bin is a pickle of more than tensors"):
            dense_folder(NAME)
    assert not (tmp_path / "ran").exists()


def test_a_model_with_pickles_only_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_model: Path
) -> None:
    source = tmp_path / "source"
    shutil.copytree(tiny_model, source)
    (source / "model.safetensors").rename(source / "pytorch_model.bin")
    with pytest.raises(ReseedError, match=r"pytorch_model\.bin is a pickle, .*save the model again"):
        dense_folder(str(source))
    with hub_of(NAME, source) as hub:
        ask(hub, monkeypatch, tmp_path)
        with pytest.raises(ReseedError, match=r"no \.safetensors file in .*name a revision that has them"):
            dense_folder(NAME)
    assert "pytorch_model.bin" not in hub.given


@pytest.mark.parametrize(("status", "wrong"), [(401, "wants a valid token"), (403, "does not let you read it")])
def test_a_hub_that_refuses_is_told_from_a_network_that_is_away(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_model: Path, status: int, wrong: str
) -> None:
    with hub_of(NAME, tiny_model) as hub:
        ask(hub, monkeypatch, tmp_path)
        hub.status, hub.said = status, "Invalid credentials in Authorization header"
        with pytest.raises(ReseedError, match=rf"model '{NAME}': the hub answered {status}: it {wrong}") as raised:
            dense_folder(NAME)
        with pytest.raises(ReseedError, match=rf"model '{NAME}': the hub answered {status}: it {wrong}"):
            fetched_config(NAME)
    assert "set HF_TOKEN to a token that may read it" in str(raised.value)
    assert "network" not in str(raised.value)


def test_a_tokenizer_comes_without_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_model: Path) -> None:
    spec = ModelSpec(name=f"{NAME}@main", upcycle=Upcycle(experts=2, top_k=1))
    with hub_of(NAME, tiny_model) as hub:
        ask(hub, monkeypatch, tmp_path)
        assert len(load_tokenizer(tokenizer_folder(spec))) == 284
        assert "tokenizer.json" in hub.given
        assert [name for name in hub.given if name.endswith(".safetensors")] == []
    gone(monkeypatch)
    assert load_tokenizer(tokenizer_folder(spec))
    with pytest.raises(ReseedError, match="the hub did not give it"):
        dense_folder(spec.name)
