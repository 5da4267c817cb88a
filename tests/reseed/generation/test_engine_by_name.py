"""A second engine is one file, which a model of a profile names."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest
from pydantic import ValidationError

from reseed.generation.engine import open_engine
from reseed.line import Line
from reseed.models.names import ModelSpec, identity
from reseed.recipe.profile import load_profile
from reseed.recipe.reading import load_recipe
from reseed.records import Member
from reseed.store.artifacts import ArtifactStore


class Echo:
    """An engine that is only opened."""

    def __init__(self, spec: ModelSpec, batch_size: int) -> None:
        self.spec, self.batch_size = spec, batch_size


@pytest.fixture
def echo(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The engines `transformers` and `echo`."""
    for name in ("transformers", "echo"):
        (tmp_path / f"{name}_engine.py").write_text("")
    monkeypatch.setattr("reseed.models.names.ENGINES", tmp_path)
    module = ModuleType("echo_engine")
    module.open_engine = Echo  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "reseed.generation.engines.echo_engine", module)


def test_the_engine_of_a_model_is_opened(echo: None) -> None:
    opened = open_engine(ModelSpec(name="a/b", engine="echo"), 7)
    assert isinstance(opened, Echo)
    assert (opened.spec.name, opened.batch_size) == ("a/b", 7)


def test_an_unknown_engine_is_refused_with_those_that_exist(echo: None) -> None:
    with pytest.raises(
        ValidationError, match=r"no engine of that name \(did you mean 'echo'\?\); there is echo, transformers"
    ):
        ModelSpec(name="a/b", engine="ecko")


def test_answers_are_of_their_engine_and_adapters_of_none(echo: None, tmp_path: Path) -> None:
    assert "engine" not in identity(ModelSpec(name="a/b")), "what was stored before is found"
    store, member = ArtifactStore(str(tmp_path / "store")), Member("default", 0)
    usual, other = (
        Line(load_recipe("rewrites"), load_profile("laptop", overrides), store)
        for overrides in ((), ("roles.student.engine=echo",))
    )
    assert usual.adapter(member).artifact == other.adapter(member).artifact
    assert usual.answers(None).artifact != other.answers(None).artifact
