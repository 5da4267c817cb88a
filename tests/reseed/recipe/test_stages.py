"""Variants that continue one another: their order, their keys, what is scored, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from plain_step import plain_step

from reseed.files import write_jsonl
from reseed.leaks import refuse_leaks
from reseed.line import Line, plan_line, training_of
from reseed.recipe.profile import load_profile
from reseed.recipe.reading import load_recipe
from reseed.recipe.recipe import Recipe
from reseed.recipe.stages import scored_variants, training_order, variants_of
from reseed.records import Artifact, Member, ReseedError
from reseed.store.artifacts import ArtifactStore
from reseed.store.step import Step

HOLDOUT = {"fraction": 0.2, "group_by": "rewrite_prompt"}
OTHER_ROWS = {"generation": {"rows": 32}}


def on(start: str | None, **training: Any) -> dict[str, Any]:
    """A variant that continues another."""
    return {"training": {"start_from": start, **training}}


def recipe_of(folder: Path, variants: dict[str, Any], **changes: Any) -> Recipe:
    """A recipe of these variants and two seeds."""
    values = {
        "name": "staged",
        "problem": "prompt-recovery",
        "question": "Does a first stage help?",
        "generation": {"rows": 64},
        "data": {"validation": HOLDOUT, "test": HOLDOUT},
        "variants": variants,
        "seeds": [0, 1],
        **changes,
    }
    path = folder / "staged.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    return load_recipe(str(path))


def line_of(folder: Path, variants: dict[str, Any], **changes: Any) -> Line:
    profile = load_profile("laptop", ("store=unused",))
    return plan_line(recipe_of(folder, variants, **changes), profile, ArtifactStore(profile.store))


def test_members_are_trained_after_those_that_they_go_on_from(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, {"third": on("second"), "second": on("first"), "alone": {}, "first": {}})
    order = [str(member) for member in training_order(recipe)]
    assert order == [f"{name} seed {seed}" for name in ("alone", "first", "second", "third") for seed in (0, 1)]
    plain = recipe_of(tmp_path, {"b": {}, "a": {}})
    assert training_order(plain) == plain.members()


def test_a_stage_s_key_holds_the_adapter_that_it_goes_on_from(tmp_path: Path) -> None:
    line, alone = line_of(tmp_path, {"b": on("a"), "a": {}}), line_of(tmp_path, {"alone": {}})
    for seed in (0, 1):
        first, second = (line.adapter(Member(name, seed)) for name in ("a", "b"))
        assert set(first.inputs) == {"partition"}
        assert second.inputs["start"] == first.artifact, "of the same seed"
        assert alone.adapter(Member("alone", seed)).artifact.key == first.artifact.key
    taught = line_of(tmp_path, {"b": on("a"), "a": {"training": {"epochs": 2}}})
    assert taught.adapter(Member("b", 0)).artifact.key != line.adapter(Member("b", 0)).artifact.key
    renamed = line_of(tmp_path, {"b": on("c"), "c": {}})
    assert renamed.adapter(Member("b", 0)).artifact == line.adapter(Member("b", 0)).artifact, "a name changes nothing"


def test_steps_come_in_the_order_in_which_they_run(tmp_path: Path) -> None:
    steps = [step.artifact for step in line_of(tmp_path, {"b": on("a"), "a": {}}).steps()]
    for step in line_of(tmp_path, {"b": on("a"), "a": {}}).steps():
        assert all(steps.index(given) < steps.index(step.artifact) for given in step.inputs.values())


def test_a_stage_with_other_rows_is_trained_and_not_scored(tmp_path: Path) -> None:
    variants = {"first": OTHER_ROWS, "second": on("first"), "alone": {}}
    recipe = recipe_of(tmp_path, variants, baseline="alone")
    assert scored_variants(recipe) == ["second", "alone"]
    line = line_of(tmp_path, variants, baseline="alone")
    assert {member.variant for member in line.members} == {"first", "second", "alone"}
    assert {member.variant for member in line.answering()} == {"second", "alone"}
    assert not [role for role in line.results().inputs if "first" in role]
    assert scored_variants(recipe_of(tmp_path, {"first": {}, "second": on("first")})) == ["first", "second"]


@pytest.mark.parametrize(
    ("variants", "wanted"),
    [
        ({"a": {}, "bb": on("aa")}, ["variants.bb.training.start_from: 'aa' is none of the variants a, bb", "'a'?"]),
        ({"a": on("a")}, ["variants.a.training.start_from: it leads in a circle, a → a"]),
        ({"a": on("b"), "b": on("a")}, ["a → b → a", "b → a → b", "start anew"]),
        ({"a": {}, "b": on("a", rank=4)}, ["variants.b.training.rank: 4, but 'a', where it starts, has 8"]),
        ({"a": {"training": {"dora": True}}, "b": on("a")}, ["variants.b.training.dora: False, but 'a'", "True"]),
        ({"a": {}, "b": on("a") | {"model": "some/model"}}, ["variants.b.model: 'some/model', but 'a'", "None"]),
        ({"a": {}, "b": on("a", keep_optimizer=True)}, ["variants.b.training.keep_optimizer: 'a'", "let both keep it"]),
        ({"a": {"training": {"keep_optimizer": True, "optimizer": "adamw-8bit"}}}, ["only the state of adamw is kept"]),
        ({"a": OTHER_ROWS, "b": on("a")}, ["baseline: 'b' continues 'a' with other rows", "the rows of 'b'"]),
    ],
)
def test_mistakes_name_their_key(tmp_path: Path, variants: dict[str, Any], wanted: list[str]) -> None:
    with pytest.raises(ReseedError) as raised:
        recipe_of(tmp_path, variants)
    assert [text for text in wanted if text not in str(raised.value)] == []


def test_a_recipe_whose_only_variant_goes_on_from_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ReseedError, match=r"variants\.default\.training\.start_from: 'a' is none of the variants"):
        recipe_of(tmp_path, {"default": {}}, training={"start_from": "a"})


def partition_of(store: ArtifactStore, folder: Path, **parts: list[tuple[str, str]]) -> Artifact:
    """A partition whose rows are pairs of an id and a prompt."""
    folder.mkdir()
    for part in ("train", "validation", "test"):
        rows = [{"id": name, "rewrite_prompt": prompt} for name, prompt in parts.get(part, [])]
        write_jsonl(folder / f"{part}.jsonl", rows)
    return store.write(plain_step("partition", 1, "partition", "staged", {"folder": folder.name}), folder)


@pytest.mark.parametrize(
    ("trained_on", "message"),
    [
        ([("1", "Sing."), ("2", "Shout.")], None),
        ([("1", "Sing."), ("8", "Rhyme.")], "1 of its 2 test rows are, or share rewrite_prompt with.* as row 6"),
        ([("9", "Sing.")], "1 of its 1 validation rows are.* as row 9; take them out of the rows of 'first'"),
    ],
)
def test_rows_that_an_earlier_stage_was_trained_on_are_never_held_out(
    tmp_path: Path, trained_on: list[tuple[str, str]], message: str | None
) -> None:
    recipe = recipe_of(tmp_path, {"first": OTHER_ROWS, "second": on("first"), "third": on("second")}, baseline="third")
    store = ArtifactStore(str(tmp_path / "store"))
    first = partition_of(store, tmp_path / "a", train=trained_on)
    held_out = {"validation": [("9", "Whisper.")], "test": [("7", "Recite."), ("6", "Rhyme.")]}
    later = partition_of(store, tmp_path / "b", train=[("3", "Speak.")], **held_out)
    partitions = {"first": first, "second": later, "third": later}
    if message is None:
        refuse_leaks(store, variants_of(recipe), partitions)
        return
    with pytest.raises(ReseedError, match=f"variant 'second': {message}"):
        refuse_leaks(store, variants_of(recipe), partitions)


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    """A folder, as the only store that is asked here."""
    return ArtifactStore(str(tmp_path / "store"))


def earlier(
    store: ArtifactStore, folder: Path, rows: Artifact, start: Artifact | None = None, **training: Any
) -> Artifact:
    """An adapter that an earlier run trained on the partition `rows`."""
    recipe, profile = recipe_of(folder, {"default": {}}, name="before", training=training), load_profile("laptop")
    work = training_of(recipe.variant("default"), profile, Member("default", 0), recipe.problem)
    step = Step(work, "before-default", {"partition": rows} | ({"start": start} if start else {}), 0)
    (folder / "files").mkdir(exist_ok=True)
    (folder / "files" / "curve.jsonl").write_text("")
    return store.write(step, folder / "files")


def adapter_keys(line: Line) -> dict[Member, str]:
    return {member: line.adapter(member).artifact.key for member in line.members}


def going_on(store: ArtifactStore, folder: Path, start: str, **training: Any) -> Line:
    """A line whose second variant continues a stored adapter."""
    profile = load_profile("laptop", (f"store={folder / 'store'}",))
    return plan_line(recipe_of(folder, {"anew": {}, "on": on(start, **training)}), profile, store)


def test_members_go_on_from_an_adapter_of_an_earlier_run(store: ArtifactStore, tmp_path: Path) -> None:
    rows = partition_of(store, tmp_path / "rows", train=[("1", "Sing.")])
    one, other = (earlier(store, tmp_path, rows, epochs=epochs) for epochs in (1.0, 2.0))
    line = going_on(store, tmp_path, one.path)
    for seed in (0, 1):
        assert line.adapter(Member("on", seed)).inputs["start"] == one
        assert "start" not in line.adapter(Member("anew", seed)).inputs
    keys = adapter_keys(line)
    again = adapter_keys(going_on(store, tmp_path, str(one)))  # of the key a beginning is enough
    assert again == keys
    others = adapter_keys(going_on(store, tmp_path, other.path))
    changed = {member.variant for member, key in others.items() if key != keys[member]}
    assert changed == {"on"}


@pytest.mark.parametrize(
    ("training", "model", "wanted"),
    [
        ({"rank": 4}, None, "variants.on.training.rank: 4, but the stored adapter has 8; an adapter keeps its shape"),
        ({"targets": ["q_proj"]}, None, "variants.on.training.targets: ['q_proj'], but"),
        (
            {"keep_optimizer": True},
            None,
            "variants.on.training.keep_optimizer: the stored adapter has no optimiser state",
        ),
        (
            {},
            "some/model",
            "variants.on: its model's name is 'some/model', and the stored adapter was trained on 'wheel:",
        ),
    ],
)
def test_a_stored_adapter_that_does_not_fit_is_refused(
    store: ArtifactStore, tmp_path: Path, training: dict[str, Any], model: str | None, wanted: str
) -> None:
    start = earlier(store, tmp_path, partition_of(store, tmp_path / "rows", train=[("1", "Sing.")]))
    place = (f"store={tmp_path / 'store'}",) + ((f"roles.student={{name: {model}}}",) if model else ())
    recipe = recipe_of(tmp_path, {"anew": {}, "on": on(start.path, **training)})
    with pytest.raises(ReseedError) as raised:
        plan_line(recipe, load_profile("laptop", place), store)
    assert f"start from {start}" in str(raised.value)
    assert wanted in str(raised.value)


def test_split_seeds_cannot_continue_a_stored_adapter(tmp_path: Path) -> None:
    """Its weights are the first ones of every member: those of one order would be the same adapter."""
    split = {"initialisation": [0, 1], "order": [0, 1]}
    with pytest.raises(
        ReseedError, match=r"variants\.on\.training\.start_from: adapter/x/abc decides the first weights"
    ):
        recipe_of(tmp_path, {"anew": {}, "on": on("adapter/x/abc")}, seeds=split)
    assert recipe_of(tmp_path, {"anew": {}, "on": on("anew")}, seeds=split).seeds.orders == (0, 1)


def test_an_adapter_that_is_not_there_is_told_while_planning(store: ArtifactStore, tmp_path: Path) -> None:
    with pytest.raises(ReseedError, match=r"artifact 'adapter/before-default/abc': not in the store"):
        going_on(store, tmp_path, "adapter/before-default/abc")


def test_rows_that_a_stored_adapter_ever_saw_are_never_held_out(store: ArtifactStore, tmp_path: Path) -> None:
    oldest = partition_of(store, tmp_path / "oldest", train=[("7", "Recite.")])
    old = partition_of(store, tmp_path / "old", train=[("1", "Sing.")])
    first = earlier(store, tmp_path, oldest)
    second = earlier(store, tmp_path, old, start=first)
    own = partition_of(
        store, tmp_path / "own", train=[("3", "Speak.")], validation=[("9", "Hum.")], test=[("7", "Recite.")]
    )
    for start, seen in ((earlier(store, tmp_path, old), False), (first, True), (second, True)):
        variants = variants_of(recipe_of(tmp_path, {"on": on(start.path)}))
        if not seen:
            refuse_leaks(store, variants, {"on": own})
            continue
        message = rf"1 of its 1 test rows are.* rows that '{start.path}', where it starts, .* as row 7; hold out others"
        with pytest.raises(ReseedError, match=message):
            refuse_leaks(store, variants, {"on": own})
    refuse_leaks(store, variants_of(recipe_of(tmp_path, {"on": on(earlier(store, tmp_path, own).path)})), {"on": own})
