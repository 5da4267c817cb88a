from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from reseed.generation.pairs import draw_pairs
from reseed.recipe.profile import load_profile
from reseed.recipe.reading import find_recipe, load_recipe, split_overrides
from reseed.recipe.values import merge
from reseed.records import Member, ReseedError
from reseed.settings import RECIPES

SHIPPED = sorted(RECIPES.glob("*.yaml"))
GOOD: dict[str, Any] = {
    "name": "small",
    "problem": "prompt-recovery",
    "question": "Does it load?",
    "generation": {"rows": 8},
    "data": {
        "validation": {"fraction": 0.1, "group_by": "rewrite_prompt"},
        "test": {"fraction": 0.2, "group_by": "rewrite_prompt"},
    },
}


def written(folder: Path, changes: dict[str, Any], without: str = "") -> str:
    """A recipe file: the good one with changes laid on it."""
    values = {key: value for key, value in merge(GOOD, changes).items() if key != without}
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    return str(path)


def refused(folder: Path, changes: dict[str, Any], *overrides: str, without: str = "") -> str:
    """What is said about a recipe with mistakes."""
    with pytest.raises(ReseedError) as caught:
        load_recipe(written(folder, changes, without), overrides)
    return str(caught.value)


def test_split_seeds_are_crossed(tmp_path: Path) -> None:
    recipe = load_recipe(written(tmp_path, {"seeds": {"initialisation": [4, 1], "order": [0, 7]}}))
    assert [member.run for member in recipe.members()] == ["4.0", "4.7", "1.0", "1.7"]
    assert str(recipe.members()[1]) == "default seed 4.7"
    assert (len(recipe.seeds), recipe.seeds.most, recipe.seeds.looks) == (4, 4, ())


def test_seeds_until_decided_begin_with_the_first_look(tmp_path: Path) -> None:
    path = written(tmp_path, {"seeds": {"start": 3, "most": 8}})
    recipe = load_recipe(path)
    assert (recipe.seeds.listed, recipe.seeds.looks, recipe.seeds.most) == ((0, 1, 2), (3, 4, 5, 6, 8), 8)
    assert (recipe.seeds.before, recipe.seeds.at(8).before) == (0, 6)
    assert load_recipe(path, ("seeds.most=4",)).seeds.looks == (3, 4)
    assert load_recipe(path, ("seeds=[7]",)).seeds.looks == ()
    assert load_recipe(path, ("seeds={initialisation: [0, 1], order: [2, 3]}",)).seeds.orders == (2, 3)
    assert load_recipe(path, ("seeds=[7]", "seeds.start=4", "seeds.most=6")).seeds.looks == (4, 5, 6)
    assert load_recipe(path, ("seeds.order=[2, 3]", "seeds.initialisation=[0, 1]")).seeds.orders == (2, 3)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_recipe_loads(path: Path) -> None:
    recipe = load_recipe(path.stem)
    assert recipe.name == path.stem, "a recipe is found under the name that its results have"
    assert recipe.question.endswith("?")
    assert all(recipe.variant(name).recipe == recipe.name for name in recipe.variants)
    if recipe.data.train is None:
        assert recipe.generation is not None
        assert len(draw_pairs(recipe.generation)) == recipe.generation.rows


def test_recipes_are_shipped() -> None:
    assert {"quickstart", "rewrites"} <= {path.stem for path in SHIPPED}


@pytest.mark.parametrize(("name", "least"), [("passages", 60), ("prompts", 50)])
def test_seed_texts_are_many_and_different(name: str, least: int) -> None:
    lines = [line.strip() for line in (RECIPES / "seeds" / f"{name}.txt").read_text(encoding="utf-8").splitlines()]
    texts = [" ".join(line.lower().rstrip(".!").split()) for line in lines if line]
    assert len(texts) >= least
    assert len(set(texts)) == len(texts)


def test_members_are_every_variant_with_every_seed(tmp_path: Path) -> None:
    recipe = load_recipe(written(tmp_path, {"variants": {"b": {}, "a": {}}, "seeds": [3, 1]}))
    assert recipe.members() == [Member("b", 3), Member("b", 1), Member("a", 3), Member("a", 1)]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"trainin": {}}, ["trainin: unknown key", "did you mean 'training'"]),
        ({"training": {"rnak": 4}}, ["training.rnak: unknown key", "did you mean 'rank'", "learning_rate"]),
        ({"data": {"test": {"fracton": 0.1}}}, ["data.test.fracton: unknown key", "did you mean 'fraction'"]),
        ({"generation": {"top-p": 0.9}}, ["generation.top-p: unknown key", "did you mean 'top_p'"]),
        ({"training": {"epochs": "many"}}, ["training.epochs: ", "valid number", "saw 'many'"]),
        ({"training": {"rank": 0}}, ["training.rank: ", "greater than or equal to 1", "saw 0"]),
        (
            {"training": {"loss_on": "answer"}},
            ["training.loss_on: ", "'completion', 'all' or 'weighted'", "saw 'answer'"],
        ),
        ({"training": {"prompt_weight": 1.5}}, ["training.prompt_weight: ", "less than or equal to 1", "saw 1.5"]),
        ({"generation": {"top_p": 1.5}}, ["generation.top_p: ", "less than or equal to 1", "saw 1.5"]),
        ({"data": {"test": {"fraction": 1.0}}}, ["data.test.fraction: ", "less than 1", "saw 1.0"]),
        ({"seeds": [0, 1, 0]}, ["seeds: seed 0 is listed twice", "saw [0, 1, 0]"]),
        ({"seeds": []}, ["seeds: wanted at least one seed"]),
        (
            {"seeds": {"initialisation": [0, 1], "order": [0, 1, 2]}},
            ["seeds: 2 initialisations and 3 orders; wanted as many of each"],
        ),
        ({"splits": [1]}, ["splits: [1]; wanted two values of data.seed or more that differ"]),
        ({"splits": [1, 1]}, ["splits: [1, 1]; wanted two"]),
        ({"splits": [0, -1]}, ["splits.1: ", "greater than or equal to 0", "saw -1"]),
        (
            {"splits": [0, 1], "seeds": [0, 1]},
            ["seeds: [0, 1], but every split is trained with the same list of them; wanted three"],
        ),
        ({"splits": [True, 0]}, ["splits.0: ", "valid integer", "saw True"]),
        (
            {"splits": [0, 1], "seeds": {"start": 3, "most": 5}},
            ["seeds: looks, but every split is trained with the same list"],
        ),
        (
            {"splits": [0, 1], "data": {"seed": 3}},
            ["data.seed: 3, but the recipe's splits are the values of data.seed"],
        ),
        (
            {"splits": [0, 1], "variants": {"a": {"data": {"seed": 2}}}},
            ["variants.a.data.seed: 2, but the recipe's splits"],
        ),
        (
            {"splits": [0, 1], "variants": {"a": {"data": {"seed": 0}}}},
            ["variants.a.data.seed: 0, but the recipe's splits"],
        ),
        ({"seeds": [-1]}, ["seeds: seed -1", "wanted 0 to", "saw [-1]"]),
        ({"seeds": ["a"]}, ["seeds: seed a is not a valid seed", "wanted 0 to", "saw ['a']"]),
        ({"seeds": 3}, ["seeds: wanted a list", "{start: 3, most: 10}", "saw 3"]),
        ({"seeds": {"initialisation": [0, 1]}}, ["seeds: order is None, wanted a list of two seeds or more"]),
        ({"seeds": {"initialisation": [0, 1], "order": [3, 3]}}, ["seeds: seed 3 is listed twice"]),
        ({"seeds": {"initialisation": [0, 1], "order": [0, 1], "most": 5}}, ["seeds: has the key most; wanted a list"]),
        ({"seeds": {"start": 3}}, ["seeds: wanted a list", "{start: 3, most: 10}", "saw {start: 3}"]),
        ({"seeds": {"start": 7, "most": 10}}, ["seeds: start 7 and most 10; wanted two of 3, 4, 5, 6, 8, 10"]),
        ({"seeds": {"start": 5, "most": 4}}, ["seeds: start 5 and most 4", "the smaller one first"]),
        ({"variants": {"untrained": {}}}, ["variants.untrained: a name without '/', and neither untrained nor"]),
        ({"variants": {"old/0": {}}}, ["variants.old/0: a name without '/'"]),
        ({"delta": 0}, ["delta"]),
        ({"baseline": "old"}, ["baseline: 'old' is none of the variants default"]),
        ({"variants": {"whole-text": {}}, "baseline": "whole-txt"}, ["baseline: 'whole-txt'", "mean 'whole-text'"]),
        ({"variants": {}}, ["variants: at least one"]),
        ({"variants": {"a": None}}, ["variants.a: ", "dictionary", "saw None"]),
        ({"variants": {"a": {"seeds": [7]}}}, ["variants.a.seeds: ", "what all share"]),
        (
            {"variants": {"a": {"training": {"rnk": 1}}}},
            ["variants.a.training.rnk: unknown key", "did you mean 'rank'"],
        ),
        ({"variants": {"a": {"modle": "x"}}}, ["variants.a.modle: unknown key", "did you mean 'model'"]),
        ({"name": "No Spaces"}, ["name: ", "pattern", "saw 'No Spaces'"]),
        ({"generation": None}, ["data.train: no rows", "generation section"]),
    ],
    ids=lambda value: str(value)[:50] if isinstance(value, dict) else "",
)
def test_mistake_is_reported(tmp_path: Path, changes: dict[str, Any], said: list[str]) -> None:
    message = refused(tmp_path, changes)
    assert message.startswith("recipe small.yaml: 1 mistake\n"), message
    for part in said:
        assert part in message


def test_an_unknown_baseline_is_reported_beside_other_mistakes(tmp_path: Path) -> None:
    message = refused(tmp_path, {"baseline": "old", "training": {"epochs": "two"}})
    assert message.startswith("recipe small.yaml: 2 mistakes\n")
    assert "baseline: 'old' is none of the variants default" in message


def test_fractions_that_leave_nothing_to_train_on_are_refused(tmp_path: Path) -> None:
    holdout = {"fraction": 0.5, "group_by": "rewrite_prompt"}
    assert "leaves no row to train on" in refused(tmp_path, {"data": {"validation": holdout, "test": holdout}})


@pytest.mark.parametrize("key", ["name", "problem", "question", "data"])
def test_missing_key_is_reported(tmp_path: Path, key: str) -> None:
    assert f"\n  {key}: missing" in refused(tmp_path, {}, without=key)


def test_all_mistakes_are_reported_at_once(tmp_path: Path) -> None:
    changes = {
        "qestion": "what?",
        "training": {"rank": -1, "epoch": 2},
        "seeds": [1, 1],
        "variants": {"a": {"training": {"dropout": 2}}, "b": {"data": {"limt": 3}}},
    }
    message = refused(tmp_path, changes)
    assert message.splitlines()[0] == "recipe small.yaml: 6 mistakes"
    keys = [line.strip().split(":")[0] for line in message.splitlines()[1:]]
    assert sorted(keys) == sorted(
        ["qestion", "training.rank", "training.epoch", "seeds", "variants.a.training.dropout", "variants.b.data.limt"]
    )
    assert "saw -1" in message
    assert "did you mean 'question'" in message


@pytest.mark.parametrize(
    ("problem", "said"),
    [
        ("prompt-recovry", "problem 'prompt-recovry': unknown (did you mean 'prompt-recovery'?)"),
        ("not_there.shout", "problem 'not_there.shout': cannot import not_there.shout"),
    ],
)
@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"training": {"rank": -1}}, "training.rank"),
        ({"variants": {"a": {"training": {"start_from": "b"}}}}, "variants.a.training.start_from"),
        ({"profiles": {"laptop": {"training": {"rank": -1}}}}, "profiles.laptop.training.rank"),
    ],
    ids=["settings", "stages", "profiles"],
)
def test_an_unknown_problem_is_told_beside_other_mistakes(
    tmp_path: Path, problem: str, said: str, changes: dict[str, Any], key: str
) -> None:
    first, *lines = refused(tmp_path, {**changes, "problem": problem}).splitlines()
    assert first == "recipe small.yaml: 2 mistakes"
    assert lines[0].startswith(f"  {said}")
    assert lines[1].startswith(f"  {key}: ")


def test_parts_that_disagree_are_reported_at_once(tmp_path: Path) -> None:
    holdout = {"fraction": 0.6, "group_by": "rewrite_prompt"}
    message = refused(
        tmp_path, {"generation": None, "data": {"validation": holdout, "test": holdout}, "baseline": "none"}
    )
    keys = [line.strip().split(":")[0] for line in message.splitlines()[1:]]
    assert keys[:3] == ["data.train", "data.test.fraction", "baseline"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"name: [1", "not readable as YAML"),
        (b"name: \xff\xfe", "not readable as YAML"),
        (b"a: b: c", "not readable as YAML"),
        (b"- one\n- two\n", "wanted a mapping of keys, saw list"),
        (b"", "wanted a mapping of keys, saw NoneType"),
        (b"name: x\nvariants: {a: {}, b: {}, a: {training: {rank: 4}}}\n", "the key 'a' occurs twice"),
    ],
)
def test_unreadable_file_is_reported_in_one_line(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "broken.yaml"
    path.write_bytes(content)
    with pytest.raises(ReseedError, match=said) as caught:
        load_recipe(str(path))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_misspelt_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(ReseedError, match=r"recipe 'quikstart'.*did you mean 'quickstart'.*rewrites"):
        load_recipe("quikstart")


def test_file_comes_before_a_shipped_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("quickstart").write_text("x: 1")
    assert find_recipe("quickstart") == Path("quickstart")
    assert find_recipe("rewrites") == RECIPES / "rewrites.yaml"


@pytest.mark.parametrize("text", ["training.epochs", "=3", " =3", "training..epochs=2", ".epochs=2", "training.=2", ""])
def test_override_without_key_or_value_is_refused(tmp_path: Path, text: str) -> None:
    assert f"--set {text}: wanted key=value" in refused(tmp_path, {}, text)


def test_override_that_is_no_yaml_is_refused(tmp_path: Path) -> None:
    message = refused(tmp_path, {}, "seeds=[1")
    assert message.startswith("--set seeds=[1: the value is not readable as YAML")
    assert "\n" not in message


def test_override_with_a_mistake_is_reported_with_its_key(tmp_path: Path) -> None:
    assert "training.epoch: unknown key (did you mean 'epochs'?)" in refused(tmp_path, {}, "training.epoch=2")
    assert "name.x: " not in refused(tmp_path, {}, "name.x=2")


def test_values_of_overrides_are_yaml(tmp_path: Path) -> None:
    texts = ("seeds=[4, 5]", "training.learning_rate=1e-3", "question=Is 1=1?", "data.limit=null", "name=b")
    recipe = load_recipe(written(tmp_path, {"data": {"limit": 3}}), texts)
    assert (recipe.seeds.listed, recipe.training.learning_rate, recipe.question) == ((4, 5), 1e-3, "Is 1=1?")
    assert recipe.data.limit is None


def test_recipe_then_variant_then_profile_then_set(tmp_path: Path) -> None:
    changes = {
        "model": "the-recipe",
        "training": {"rank": 2, "alpha": 2, "epochs": 2},
        "variants": {"a": {"model": "the-variant", "training": {"alpha": 3, "epochs": 3}}, "b": {}},
    }
    path = written(tmp_path, changes)
    a, b = (load_recipe(path, ("training.epochs=4",)).variant(name).training for name in "ab")
    assert (a.rank, a.alpha, a.epochs) == (2, 3, 4), "recipe, variant, --set"
    assert (b.rank, b.alpha, b.epochs) == (2, 2, 4)

    def student(profile: str, *overrides: str) -> str:
        own, place = split_overrides(overrides)
        return load_profile(profile, place).student(load_recipe(path, own).variant("a").model).name

    assert student("gpu") == "the-variant", "a profile without a student takes the variant's model"
    assert student("laptop").startswith("wheel:"), "the profile's role comes before the variant's model"
    assert student("laptop", "model=set") == "set", "--set comes last"
    assert student("laptop", "model=set", "profile.roles.student.name=place") == "place"


def test_what_differs_by_profile_comes_after_the_recipe_and_before_the_variants(tmp_path: Path) -> None:
    changes = {
        "training": {"rank": 2, "alpha": 2, "epochs": 2, "dropout": 0.2},
        "profiles": {"gpu": {"training": {"alpha": 3, "epochs": 3, "dropout": 0.3}, "data": {"limit": 7}}},
        "variants": {"a": {"training": {"epochs": 4, "dropout": 0.4}}},
    }
    path = written(tmp_path, changes)
    plain, gpu = (load_recipe(path, ("training.dropout=0.5",), profile).variant("a") for profile in (None, "gpu"))
    assert (gpu.training.rank, gpu.training.alpha, gpu.training.epochs, gpu.training.dropout) == (2, 3, 4, 0.5)
    assert (plain.training.alpha, plain.data.limit, gpu.data.limit) == (2, None, 7)
    assert load_recipe(path, (), "laptop") == load_recipe(path), "another profile's settings are not laid on"
    assert load_recipe(path, ("profiles.gpu.training.rank=9",), "gpu").training.rank == 9


def test_methods_that_variants_compare_stay_two_on_every_profile(tmp_path: Path) -> None:
    variants = {"half": {"training": {"method": "lora"}}, "quarter": {"training": {"method": "qlora"}}}
    changes = {"profiles": {"gpu": {"training": {"method": "qlora"}}}, "variants": variants}
    recipe = load_recipe(written(tmp_path, changes), (), "gpu")
    assert [recipe.variant(name).training.method for name in variants] == ["lora", "qlora"]


@pytest.mark.parametrize("profile", [None, "laptop", "gpu"])
@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"gpu": {"training": {"rnk": 1}}}, ["profiles.gpu.training.rnk: unknown key", "did you mean 'rank'"]),
        ({"gpu": {"training": {"rank": 0}}}, ["profiles.gpu.training.rank: ", "equal to 1", "saw 0"]),
        ({"gpu": {"trainig": {}}}, ["profiles.gpu.trainig: unknown key", "did you mean 'training'"]),
        ({"gpu": {"seeds": [7]}}, ["profiles.gpu.seeds: a profile cannot change what all share", "training"]),
        ({"gpu": None}, ["profiles.gpu: ", "dictionary", "saw None"]),
        (
            {"gpus": {"training": {"rank": 1}}},
            ["profiles.gpus: no profile", "did you mean 'gpu'", "cluster, gpu, laptop"],
        ),
        ({"gpu": {"training": {"max_tokens": 16}}}, ["profiles.gpu.prediction.max_new_tokens: 32 leave no room"]),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, dict) else "",
)
def test_mistake_in_what_differs_by_profile_is_reported_on_every_profile(
    tmp_path: Path, section: dict[str, Any], said: list[str], profile: str | None
) -> None:
    with pytest.raises(ReseedError) as caught:
        load_recipe(written(tmp_path, {"profiles": section}), (), profile)
    message = str(caught.value)
    assert message.startswith("recipe small.yaml: 1 mistake\n"), message
    for part in said:
        assert part in message


@pytest.mark.parametrize("profile", ["laptop", "gpu"])
def test_mistake_in_an_override_by_profile_is_reported_on_every_profile(tmp_path: Path, profile: str) -> None:
    path = written(tmp_path, {})
    for text, said in (("profiles.gpu.training.rnk=1", "mean 'rank'"), ("profiles.gpus.training.rank=1", "mean 'gpu'")):
        with pytest.raises(ReseedError, match=said):
            load_recipe(path, (text,), profile)
    assert load_recipe(written(tmp_path, {"profiles": {"gpu": {"training": {"max_tokens": 64}}}}),
                       ("prediction.max_new_tokens=100",), "laptop")  # fmt: skip


def test_profile_of_ones_own_may_have_settings_too(tmp_path: Path) -> None:
    path = written(tmp_path, {"profiles": {"desk": {"training": {"rank": 3}}}})
    assert load_recipe(path, (), "desk").training.rank == 3


def test_override_of_one_variant_leaves_the_others(tmp_path: Path) -> None:
    path = written(tmp_path, {"variants": {"a": {"training": {"rank": 2}}, "b": {}}})
    recipe = load_recipe(path, ("variants.b.training.rank=6",))
    assert [recipe.variant(name).training.rank for name in recipe.variants] == [2, 6]
    assert list(load_recipe(path, ("variants={c: {}}",)).variants) == ["c"]


def test_override_of_the_problem_is_that_of_all_variants(tmp_path: Path) -> None:
    for name in ("one", "other"):
        (tmp_path / f"{name}.py").write_text("from reseed.problems.prompt_recovery import *\n")
    path = written(tmp_path, {"variants": {"a": {}, "b": {"problem": "one"}}, "profiles": {"gpu": {"model": "m"}}})

    def problems(*overrides: str) -> list[str]:
        recipe = load_recipe(path, overrides)
        return [recipe.problem.name, *(recipe.variant(name).problem.name for name in recipe.variants)]

    assert problems() == ["prompt-recovery", "prompt-recovery", "one"]
    assert problems("problem=other") == ["other", "other", "other"]
    assert problems("variants.a.problem=other") == ["prompt-recovery", "other", "one"]
    assert problems("problem=other", "variants.b.problem=one") == ["other", "other", "one"]


def test_override_of_a_key_that_all_share_is_no_variant_change(tmp_path: Path) -> None:
    recipe = load_recipe(written(tmp_path, {"variants": {"a": {}}}), ("seeds=[9]", "question=Why?"))
    assert recipe.seeds.listed == (9,)
    assert recipe.variants == {"a": {}}


def test_overrides_of_the_profile_are_kept_apart() -> None:
    own, place = split_overrides(["a.b=1", "profile.store=x", "profile.roles.student=null"])
    assert own == ("a.b=1",)
    assert place == ("store=x", "roles.student=null")


KEYS = st.sampled_from("abc")
LEAVES = st.integers(0, 3) | st.none()
SECTIONS = st.dictionaries(KEYS, LEAVES | st.dictionaries(KEYS, LEAVES | st.dictionaries(KEYS, LEAVES)))


def at(values: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        values = values[key]
    return values


def leaves(values: Any, place: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """The paths of everything that is no section."""
    if not isinstance(values, dict):
        return [place]
    return [path for key, value in values.items() for path in leaves(value, (*place, key))]


@settings(max_examples=60, deadline=None)
@given(SECTIONS, SECTIONS)
def test_merge_changes_neither_and_over_wins(base: dict[str, Any], over: dict[str, Any]) -> None:
    before = copy.deepcopy((base, over))
    merged = merge(base, over)
    assert (base, over) == before
    assert all(at(merged, path) == at(over, path) for path in leaves(over))
    assert set(merged) == set(base) | set(over)
    assert all(merged[key] == base[key] for key in base if key not in over)
    assert merge(merged, over) == merged
    assert merge(base, {}) == base
    assert merge({}, over) == over


def test_an_answer_that_leaves_no_room_for_a_prompt_is_refused() -> None:
    with pytest.raises(ReseedError, match=r"prediction.max_new_tokens: 256 leave no room for a prompt"):
        load_recipe("quickstart", ("prediction.max_new_tokens=256",))
