from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from reseed.models.names import ModelSpec
from reseed.recipe.profile import PROFILES, cluster_address, load_profile
from reseed.records import ReseedError

SHIPPED = sorted(PROFILES.glob("*.yaml"))
MODEL = "mistralai/Mixtral-8x7B-Instruct-v0.1"


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_profile_loads(path: Path) -> None:
    profile = load_profile(path.stem)
    assert profile.name == path.stem
    assert profile.student(MODEL).name


def test_profiles_are_shipped() -> None:
    assert [path.stem for path in SHIPPED] == ["cluster", "gpu", "laptop"]


def test_student_of_the_profile_comes_before_the_recipes_model() -> None:
    laptop = load_profile("laptop")
    assert laptop.student(MODEL) == laptop.roles.student
    assert laptop.student(None) == laptop.roles.student


def test_without_a_student_the_recipes_model_is_trained() -> None:
    gpu = load_profile("gpu")
    assert gpu.roles.student is None
    assert gpu.student(MODEL) == ModelSpec(name=MODEL)
    with pytest.raises(ReseedError, match=r"no model to train: profile 'gpu' names no student.*give one"):
        gpu.student(None)


def test_embedder_has_no_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would move the keys of results, and of adapters that are chosen by the metric, and change nothing."""
    for name in ("echo", "transformers"):
        (tmp_path / f"{name}_engine.py").touch()
    monkeypatch.setattr("reseed.models.names.ENGINES", tmp_path)
    with pytest.raises(ReseedError, match="embedder: engine 'echo' writes text, and an embedder writes none"):
        load_profile("laptop", ("roles.embedder.engine=echo",))


@pytest.mark.parametrize("key", ["four_bit=nf4", "separate_experts=true"])
def test_how_the_student_is_held_is_the_recipes_business(key: str) -> None:
    with pytest.raises(ReseedError, match=r"leave four_bit and separate_experts out, and set training.method: qlora"):
        load_profile("laptop", (f"roles.student.{key}",))


def test_overrides_come_last_and_leave_the_rest() -> None:
    plain = load_profile("laptop")
    changed = load_profile("laptop", ("store=s3://other/place", "training.workers=3"))
    assert (changed.store, changed.training.workers) == ("s3://other/place", 3)
    assert changed.training.micro_batch_size == plain.training.micro_batch_size
    assert changed.roles == plain.roles


def test_all_mistakes_are_reported_at_once(tmp_path: Path) -> None:
    values = yaml.safe_load((PROFILES / "laptop.yaml").read_text())
    values["stor"] = "here"
    values["engines"]["actors"] = 0
    values["roles"]["student"]["upcycle"]["expert"] = 4
    del values["roles"]["embedder"]
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(values))
    with pytest.raises(ReseedError) as caught:
        load_profile(str(path))
    message = str(caught.value)
    assert message.startswith("profile mine.yaml: 4 mistakes\n")
    assert "stor: unknown key (did you mean 'store'?)" in message
    assert "engines.actors: Input should be greater than or equal to 1, saw 0" in message
    assert "roles.student.upcycle.expert: unknown key (did you mean 'experts'?); known here: experts, top_k" in message
    assert "roles.embedder: missing" in message


def test_misspelt_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(ReseedError, match=r"profile 'labtop'.*did you mean 'laptop'.*cluster, gpu, laptop"):
        load_profile("labtop")


def test_overrides_with_mistakes_are_reported() -> None:
    with pytest.raises(ReseedError, match=r"roles.studnt: unknown key \(did you mean 'student'\?\)"):
        load_profile("laptop", ("roles.studnt=null",))
    with pytest.raises(ReseedError, match="wanted key=value"):
        load_profile("laptop", ("store",))


@pytest.mark.parametrize("where", ["profile", "environment"])
@pytest.mark.parametrize(("address", "joined"), [("local", None), ("auto", "auto"), ("10.0.0.1:6379", "10.0.0.1:6379")])
def test_a_local_ray_is_no_cluster(
    monkeypatch: pytest.MonkeyPatch, where: str, address: str, joined: str | None
) -> None:
    """A local one would otherwise be started as Ray itself does: open to the network, without a token."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    overrides = (f"ray_address={address}",) if where == "profile" else ()
    if where == "environment":
        monkeypatch.setenv("RAY_ADDRESS", address)
    assert cluster_address(load_profile("laptop", overrides)) == joined
