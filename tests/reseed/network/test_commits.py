"""A model's name in a recipe or profile becomes the commit that it means, before there is a key."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hub_server import COMMIT, hub_of

from reseed.files import write_atomically
from reseed.network.commits import commit_of, known_commit, note_of
from reseed.recipe.pins import pin
from reseed.recipe.profile import load_profile
from reseed.recipe.reading import load_recipe
from reseed.records import ReseedError

NAME = "reseed-tests/model"
AWAY = "http://127.0.0.1:9"  # where nobody answers


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cache: Path) -> pytest.MonkeyPatch:
    """Nothing is known of any hub, and nobody answers for it; `ENDPOINT` may be set."""
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", AWAY)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return monkeypatch


def test_the_commit_is_the_hub_s_and_remembered(ask: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    assert commit_of(NAME, "model") is None, "never asked"
    with hub_of(NAME, tmp_path / "model") as hub:
        ask.setattr("huggingface_hub.hf_api.constants.ENDPOINT", hub.url)
        assert commit_of(NAME, "model") == COMMIT
        assert commit_of(f"{NAME}@{'a' * 40}", "model") == "a" * 40
        assert hub.asked == 1, "a commit is not asked for"
        with pytest.raises(
            ReseedError, match=f"model '{NAME}@gone': the hub has none of that name and revision for you"
        ):
            commit_of(f"{NAME}@gone", "model")
        with pytest.raises(ReseedError, match="model 'a--b': neither a path here nor a hub id"):
            commit_of("a--b", "model")
    assert (commit_of(NAME, "model"), known_commit(NAME), known_commit(f"{NAME}@dev")) == (COMMIT, COMMIT, None)


def test_others_who_use_the_hub_s_cache_know_too(ask: pytest.MonkeyPatch, tmp_path: Path) -> None:
    refs = tmp_path / "hub" / "models--reseed-tests--model" / "refs"
    refs.mkdir(parents=True)
    (refs / "main").write_text(COMMIT)
    assert (commit_of(NAME, "model"), commit_of(f"{NAME}@dev", "model")) == (COMMIT, None)
    note = note_of(NAME, "main", "model")
    write_atomically(note, b"d" * 40)
    os.utime(note, (1, 1))
    assert commit_of(NAME, "model") == COMMIT, "the newer one"


@pytest.mark.parametrize("status", [401, 403, 429, 500])
def test_a_hub_that_is_busy_or_behind_a_proxy_is_not_asked_for_long(
    ask: pytest.MonkeyPatch, tmp_path: Path, status: int
) -> None:
    (tmp_path / "model").mkdir()
    write_atomically(note_of(NAME, "main", "model"), COMMIT.encode())
    with hub_of(NAME, tmp_path / "model") as hub:
        ask.setattr("huggingface_hub.hf_api.constants.ENDPOINT", hub.url)
        hub.status = status
        assert commit_of(NAME, "model") == COMMIT


@pytest.mark.parametrize(
    ("status", "said", "wrong"),
    [
        (
            401,
            "Invalid credentials in Authorization header",
            r"401: it wants a valid token \(Invalid credentials",
        ),
        (403, "Your token has no rights here", r"403: it does not let you read it \(Your token"),
    ],
)
def test_a_hub_that_refuses_is_no_network_that_is_away(
    ask: pytest.MonkeyPatch, tmp_path: Path, status: int, said: str, wrong: str
) -> None:
    (tmp_path / "model").mkdir()
    with hub_of(NAME, tmp_path / "model") as hub:
        ask.setattr("huggingface_hub.hf_api.constants.ENDPOINT", hub.url)
        hub.status, hub.said = status, said
        with pytest.raises(ReseedError, match=rf"model '{NAME}': the hub answered {wrong}.*set HF_TOKEN") as raised:
            commit_of(NAME, "model")
    assert "network" not in str(raised.value)


def test_recipe_and_profile_are_pinned_as_far_as_they_are_used(ask: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    place = load_profile("gpu", (f"roles.embedder.name={NAME}",))
    changes = {"name": "two", "model": NAME, "variants": {"one": {}, "same": {"model": f"{NAME}@{'a' * 40}"}}}
    with hub_of(NAME, tmp_path / "model") as hub:
        ask.setattr("huggingface_hub.hf_api.constants.ENDPOINT", hub.url)
        found = pin(load_recipe("quickstart", ("data.train=rows.csv",)).model_copy(update=changes), place)
    assert hub.asked == 1, "the name stands twice and is asked for once"
    assert (found.recipe.model, found.place.roles.embedder.name) == (f"{NAME}@{COMMIT}", f"{NAME}@{COMMIT}")
    assert found.recipe.variants["same"] == {"model": f"{NAME}@{'a' * 40}"}
    assert found.place.roles.generator == place.roles.generator, "nothing is generated"
    assert found.unknown == ()
    ask.setattr("huggingface_hub.hf_api.constants.ENDPOINT", AWAY)
    changes["variants"] = {"one": {}, "other": {"model": "reseed-tests/other"}}
    generating = pin(load_recipe("quickstart").model_copy(update=changes), place)
    assert set(generating.unknown) == {"google/gemma-2-9b-it", "reseed-tests/other"}
