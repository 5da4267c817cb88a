from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from plain_step import plain_step
from tiny import save_model

from reseed.in_turn import each_look, each_split
from reseed.language.prompts import RENDERING
from reseed.line import Line, plan_line
from reseed.notes import notes_of
from reseed.problems import ProblemModule
from reseed.recipe.profile import load_profile
from reseed.recipe.reading import load_recipe
from reseed.records import Artifact, Member, ReseedError
from reseed.settings import RECIPES
from reseed.steps.generate import WriteShard
from reseed.store.artifacts import ArtifactStore
from reseed.store.step import Step

EVERYTHING = {"shard", "rows", "curated", "partition", "adapter", "predictions", "untrained", "ensemble", "results"}
FROM_PARTITION = {"partition", "adapter", "predictions", "untrained", "ensemble", "results"}
FROM_TRAINING = {"adapter", "predictions", "ensemble", "results"}
ANSWERS = {"predictions", "untrained", "ensemble", "results"}
HOLDOUT = {"fraction": 0.2, "group_by": "rewrite_prompt"}
CSV = "original_text,rewritten_text,rewrite_prompt\na,b,c\n"


def save_recipe(folder: Path, **changes: Any) -> str:
    """A recipe of two shards, two variants and two seeds; `changes` replace whole sections."""
    recipe = {
        "name": "small",
        "problem": "prompt-recovery",
        "question": "Which keys change?",
        "generation": {"rows": 64, "shard_rows": 32},
        "data": {"validation": HOLDOUT, "test": HOLDOUT},
        "variants": {"a": {}, "b": {"training": {"loss_on": "all"}}},
        "seeds": [0, 1],
        **changes,
    }
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump({key: value for key, value in recipe.items() if value is not None}, sort_keys=False))
    return str(path)


def planned(recipe: str, *overrides: str, place: tuple[str, ...] = (), store: str = "unused") -> Line:
    both = [f"roles.{role}.dtype=bfloat16" for role in ("generator", "student")]  # whatever this CPU computes in
    profile = load_profile("laptop", (f"store={store}", *both, *place))
    return plan_line(load_recipe(recipe, overrides), profile, ArtifactStore(profile.store))


def keys(line: Line) -> dict[str, list[str]]:
    """Kind → the keys of all its steps; the untrained student's predictions apart."""
    return {
        "shard": [step.artifact.key for step in line.all_shards()],
        "rows": [step.artifact.key for step in map(line.rows, line.variants)],
        "curated": [step.artifact.key for step in map(line.curated, line.variants)],
        "partition": [step.artifact.key for step in map(line.partition, line.variants)],
        "adapter": [step.artifact.key for step in map(line.adapter, line.members)],
        "predictions": [step.artifact.key for step in map(line.answers, line.answering())],
        "untrained": [line.answers(None).artifact.key],
        "ensemble": [step.artifact.key for step in line.ensembles()],
        "results": [line.results().artifact.key],
    }


def changed(before: Line, after: Line) -> set[str]:
    """The kinds of which any key is another one."""
    old, new = keys(before), keys(after)
    return {kind for kind in old if old[kind] != new[kind]}


@pytest.mark.parametrize(
    ("override", "kinds"),
    [
        ("generation.temperature=0.5", EVERYTHING),
        ("generation.top_p=0.5", EVERYTHING),
        ("generation.max_new_tokens=7", EVERYTHING),
        ("generation.seed=1", EVERYTHING),
        ("generation.shard_rows=16", EVERYTHING),
        ("generation.rows=63", EVERYTHING),
        ("data.seed=1", FROM_PARTITION),
        ("data.limit=20", FROM_PARTITION),
        ("data.test.fraction=0.3", FROM_PARTITION),
        ("data.validation.group_by=original_text", FROM_PARTITION),
        ("training.rank=3", FROM_TRAINING),
        ("training.learning_rate=0.5", FROM_TRAINING),
        ("training.batch_size=6", FROM_TRAINING),
        ("training.evaluate_every=3", FROM_TRAINING),
        ("training.targets=[q_proj]", FROM_TRAINING),
        ("training.max_tokens=64", FROM_TRAINING | {"untrained"}),
        ("training.prompt_format=chat", FROM_TRAINING | {"untrained"}),
        ("training.system=Be short.", FROM_TRAINING | {"untrained"}),
        ("training.prompt_format=text", set()),
        ("training.packing=true", FROM_TRAINING),
        ("prediction.max_new_tokens=5", ANSWERS),
        ("constants=[Improve the text.]", {"results"}),
        ("question=Really?", {"results"}),
        ("baseline=b", {"results"}),
        ("name=other", set()),
        ("seeds=[0, 1]", set()),
        ("training.rank=8", set()),
    ],
)
def test_recipe_change_reaches_the_steps_that_read_it_and_no_other(
    tmp_path: Path, override: str, kinds: set[str]
) -> None:
    recipe = save_recipe(tmp_path)
    assert changed(planned(recipe), planned(recipe, override)) == kinds


@pytest.mark.parametrize(
    ("override", "kinds"),
    [
        ("roles.generator.name=google/gemma-2b-it", EVERYTHING),
        ("roles.generator.dtype=float32", EVERYTHING),
        ("engines.batch_size=3", EVERYTHING),
        ("roles.student.upcycle.experts=8", FROM_TRAINING | {"untrained"}),
        ("roles.student.dtype=float32", FROM_TRAINING | {"untrained"}),
        ("roles.embedder.name=sentence-transformers/sentence-t5-base", {"results"}),
        ("training.workers=1", FROM_TRAINING),
        ("training.micro_batch_size=1", FROM_TRAINING),
        ("store=elsewhere", set()),
        ("name=desk", set()),
        ("cpus=1", set()),
        ("ray_address=auto", set()),
        ("engines.actors=7", set()),
        ("engines.gpus=1", set()),
        ("training.cpus=2", set()),
    ],
)
def test_profile_change_reaches_the_steps_that_depend_on_it_and_no_other(
    tmp_path: Path, override: str, kinds: set[str]
) -> None:
    recipe = save_recipe(tmp_path)
    assert changed(planned(recipe), planned(recipe, place=(override,))) == kinds


def test_generator_does_not_matter_to_rows_that_exist(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text(CSV)
    recipe = save_recipe(
        tmp_path, generation=None, data={"train": str(tmp_path / "rows.csv"), "test": HOLDOUT, "validation": HOLDOUT}
    )
    before = planned(recipe)
    assert before.all_shards() == []
    assert changed(before, planned(recipe, place=("roles.generator.name=google/gemma-2b-it",))) == set()
    assert changed(before, planned(recipe, place=("engines.batch_size=3",))) == ANSWERS


def test_seed_changes_its_own_member_and_nothing_else(tmp_path: Path) -> None:
    recipe = save_recipe(tmp_path)
    before, after = planned(recipe), planned(recipe, "seeds=[0, 5]")
    assert changed(before, after) == FROM_TRAINING
    assert before.adapter(Member("a", 0)).artifact == after.adapter(Member("a", 0)).artifact
    assert before.answers(Member("a", 0)).artifact == after.answers(Member("a", 0)).artifact
    assert before.adapter(Member("a", 1)).artifact != after.adapter(Member("a", 5)).artifact
    assert planned(recipe, "seeds=[5, 0]").adapter(Member("a", 5)) == after.adapter(Member("a", 5))


def test_more_seeds_keep_the_members_that_are_trained(tmp_path: Path) -> None:
    recipe = save_recipe(tmp_path)
    before, after = planned(recipe), planned(recipe, "seeds=[0, 1, 2]")
    assert {step.artifact for step in before.adapters()} < {step.artifact for step in after.adapters()}
    assert before.results().artifact != after.results().artifact


def test_more_rows_keep_the_shards_that_are_written(tmp_path: Path) -> None:
    recipe = save_recipe(tmp_path)
    assert keys(planned(recipe, "generation.rows=96"))["shard"][:2] == keys(planned(recipe))["shard"]


@pytest.mark.parametrize(("profile", "size"), [("laptop", 32), ("gpu", 64), ("cluster", 64)])
def test_a_shard_fills_an_engine_s_batch(profile: str, size: int) -> None:
    recipe = load_recipe("rewrites")
    place = load_profile(profile)

    def shards_of(*overrides: str) -> list[Step[WriteShard]]:
        recipe = load_recipe("rewrites", ("model=some/model", "training.batch_size=8", *overrides))
        return plan_line(recipe, place, ArtifactStore("unused")).all_shards()

    shards = shards_of()
    assert recipe.generation is not None
    assert size == place.engines.batch_size
    assert len(shards) == recipe.generation.rows // size
    assert shards_of(f"generation.shard_rows={size}") == shards
    assert len(shards_of("generation.shard_rows=8")) == len(shards) * size // 8


@pytest.mark.parametrize("name", ["passages", "prompts"])
def test_text_that_the_generator_reads_changes_the_shards(tmp_path: Path, name: str) -> None:
    copy = tmp_path / f"{name}.txt"
    shutil.copy(RECIPES / "seeds" / f"{name}.txt", copy)
    recipe = save_recipe(tmp_path)
    before, there = planned(recipe), f"generation.{name}={copy}"
    assert changed(before, planned(recipe, there)) == set(), "the same text from another place"
    lines = copy.read_text(encoding="utf-8").splitlines()
    copy.write_text("\n".join(f"Another text, {line}" for line in lines), encoding="utf-8")  # not all of them are drawn
    assert changed(before, planned(recipe, there)) == EVERYTHING


def test_the_use_of_chat_templates_changes_what_is_rendered_with_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, chat = (tmp_path / name for name in ("text", "chat"))
    text.mkdir()
    chat.mkdir()
    (chat / "rows.csv").write_text(CSV)
    generated = save_recipe(text)
    given = save_recipe(
        chat, data={"train": str(chat / "rows.csv"), "validation": HOLDOUT, "test": HOLDOUT},
        training={"prompt_format": "chat"}, generation=None,
    )  # fmt: skip
    given_as_text = ("training.prompt_format=text",)
    before = planned(generated), planned(given), planned(given, *given_as_text)
    for module in ("reseed.language.prompts", "reseed.steps.generate"):
        monkeypatch.setattr(f"{module}.RENDERING", RENDERING + 1)
    after = planned(generated), planned(given), planned(given, *given_as_text)
    assert changed(before[0], after[0]) == EVERYTHING
    assert changed(before[1], after[1]) == {"adapter", "predictions", "untrained", "ensemble", "results"}
    assert not changed(before[2], after[2])


def test_source_counts_by_its_content_and_not_by_its_place(tmp_path: Path) -> None:
    for place in ("one", "two"):
        (tmp_path / place).mkdir()
        (tmp_path / place / f"{place}.csv").write_text(CSV)
    data = {"test": HOLDOUT, "validation": HOLDOUT}
    one, two = (
        planned(save_recipe(tmp_path, data={"train": str(tmp_path / place / f"{place}.csv"), **data}))
        for place in ("one", "two")
    )
    assert changed(one, two) == set()
    (tmp_path / "two" / "two.csv").write_text(CSV + "d,e,f\n")
    assert changed(one, planned(save_recipe(tmp_path, data={"train": str(tmp_path / "two" / "two.csv"), **data}))) == (
        EVERYTHING - {"shard"}
    )


def test_dataset_version_is_resolved_to_what_it_names(tmp_path: Path) -> None:
    store = ArtifactStore(str(tmp_path / "store"))
    data = {"train": "rows@latest", "test": HOLDOUT, "validation": HOLDOUT}
    recipe = save_recipe(tmp_path, data=data)
    with pytest.raises(ReseedError, match="has no dataset rows@latest"):
        planned(recipe, store=store.url)
    lines = []
    for day in ("2031-01-01", "2031-01-02"):
        (tmp_path / day).mkdir()
        (tmp_path / day / "rows.jsonl").write_text(json.dumps({"day": day}))
        store.point(
            "dataset",
            "rows",
            "latest",
            store.write(plain_step("publish", 1, "dataset", "rows", {"date": day}), tmp_path / day),
        )
        lines.append(planned(recipe, store=store.url))
    assert changed(*lines) == EVERYTHING - {"shard"}
    source = lines[1].rows("a").inputs["source"]
    assert source == store.ref("dataset", "rows", "latest").artifact  # type: ignore[union-attr]


def test_variants_share_what_they_agree_on(tmp_path: Path) -> None:
    line = planned(save_recipe(tmp_path))
    kinds = [step.artifact.kind for step in line.steps()]
    assert {kind: kinds.count(kind) for kind in kinds} == {
        "shard": 2, "rows": 1, "curated": 1, "partition": 1, "adapter": 4, "predictions": 5, "ensemble": 2, "results": 1,
        "report": 1,
    }  # fmt: skip
    other = planned(save_recipe(tmp_path, variants={"a": {}, "b": {"generation": {"temperature": 0.1}}}))
    assert len(other.all_shards()) == 4
    assert len({other.partition(name).artifact for name in other.variants}) == 2


def test_every_step_comes_after_its_inputs(tmp_path: Path) -> None:
    seen: set[Artifact] = set()
    for step in planned(save_recipe(tmp_path)).steps():
        assert set(step.inputs.values()) <= seen
        seen.add(step.artifact)


def test_result_rests_on_every_member_and_every_prediction(tmp_path: Path) -> None:
    line = planned(save_recipe(tmp_path))
    wanted = {
        step.artifact
        for step in [*line.adapters(), *line.all_answers(), *map(line.partition, line.variants), *line.ensembles()]
    }
    assert set(line.results().inputs.values()) == wanted


def test_untrained_student_answers_the_baselines_rows(tmp_path: Path) -> None:
    variants = {"a": {"data": {"limit": 10}}, "b": {}}
    line = planned(save_recipe(tmp_path, variants=variants, baseline="b"))
    assert line.answers(None).inputs == {"partition": line.partition("b").artifact}


def test_no_path_of_this_machine_is_in_a_spec(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text(CSV)
    data = {"train": str(tmp_path / "rows.csv"), "test": HOLDOUT, "validation": HOLDOUT}
    for line in (planned(save_recipe(tmp_path)), planned(save_recipe(tmp_path, data=data))):
        assert str(tmp_path) not in json.dumps([step.work.spec() for step in line.steps()])


def test_answers_of_a_model_that_may_cap_its_attention_are_marked(tmp_path: Path) -> None:
    """Those without the cap must not be taken for them; the packaged models have none, and their keys stay."""
    recipe = load_recipe(save_recipe(tmp_path, model="mistralai/Mixtral-8x7B-Instruct-v0.1"))
    for profile, mark in (("laptop", None), ("gpu", 2)):
        place = load_profile(profile, ("store=unused",))
        line = plan_line(recipe, place, ArtifactStore(place.store))
        assert {step.work.spec().get("attention") for step in (*line.all_shards(), *line.all_answers())} == {mark}


def test_keys_are_the_same_in_every_process(tmp_path: Path) -> None:
    recipe = save_recipe(tmp_path)
    code = "import sys, json, test_line as t; print(json.dumps(t.keys(t.planned(sys.argv[1]))))"
    here = os.pathsep.join(map(str, (RECIPES.parent, Path(__file__).parent, Path(__file__).parents[1])))
    told = [
        subprocess.run(
            [sys.executable, "-c", code, recipe],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": here},
            cwd=tmp_path, check=True, capture_output=True, text=True,
        ).stdout
        for seed in ("1", "2")
    ]  # fmt: skip
    assert json.loads(told[0]) == json.loads(told[1]) == keys(planned(recipe))


def test_what_the_workers_cannot_run_is_told_while_planning(tmp_path: Path) -> None:
    recipe = save_recipe(tmp_path)
    with pytest.raises(ReseedError, match=r"training\.batch_size: 7 rows a step cannot be shared by 2 workers"):
        planned(recipe, "training.batch_size=7")
    with pytest.raises(ReseedError, match=r"training\.optimizer: 'adamw-8bit' needs a GPU"):
        planned(recipe, "training.optimizer=adamw-8bit")


@pytest.mark.parametrize("name", ["quickstart", "rewrites"])
def test_what_a_shipped_recipe_says_of_gpus_moves_no_key_of_the_laptop(tmp_path: Path, name: str) -> None:
    values = yaml.safe_load((RECIPES / f"{name}.yaml").read_text())
    assert set(values.pop("profiles")) == {"gpu", "cluster"}
    (tmp_path / "bare.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    profile, store = load_profile("laptop"), ArtifactStore("unused")
    shipped, bare = load_recipe(name, (), "laptop"), load_recipe(str(tmp_path / "bare.yaml"), (), "laptop")
    assert plan_line(shipped, profile, store).steps() == plan_line(bare, profile, store).steps()


@pytest.mark.parametrize("profile", ["laptop", "gpu", "cluster"])
@pytest.mark.parametrize("recipe", sorted(path.stem for path in RECIPES.glob("*.yaml")))
def test_every_shipped_recipe_can_be_planned_on_every_shipped_profile(
    tmp_path: Path, recipe: str, profile: str
) -> None:
    (tmp_path / "rows.csv").write_text(CSV)
    loaded = load_recipe(recipe, (), profile)
    if loaded.data.train is not None:  # a URL
        loaded = load_recipe(recipe, (f"data.train={tmp_path / 'rows.csv'}", "data.columns=null"), profile)
    where = load_profile(profile)
    line = plan_line(loaded, where, ArtifactStore("unused"))
    assert {step.work.spec()["model"].get("four_bit") for step in line.adapters()} == (
        {None} if profile == "laptop" else {"nf4"}
    )


def test_variants_that_became_one_are_refused(tmp_path: Path) -> None:
    """By the profile's student, by --set, or by what the recipe says of the profile."""
    models = save_recipe(tmp_path, variants={"a": {"model": "one"}, "b": {"model": "two"}})
    with pytest.raises(ReseedError, match=r"variants 'a' and 'b' of recipe 'small' do the same on profile 'laptop'"):
        planned(models)
    assert planned(models, place=("roles.student=null",)).adapters()
    losses = save_recipe(tmp_path)
    with pytest.raises(ReseedError, match="do the same"):
        planned(losses, "training.loss_on=all")
    assert planned(losses, "training.loss_on=all", "variants={a: {}}").adapters()


def test_unknown_problem_is_told_before_anything_is_planned(tmp_path: Path) -> None:
    with pytest.raises(ReseedError, match=r"problem 'prompt-recovry'.*did you mean 'prompt-recovery'"):
        planned(save_recipe(tmp_path, problem="prompt-recovry"))


def test_the_baselines_rows_stand_for_the_data(tmp_path: Path) -> None:
    """Its training rows and its dataset table are the result's, whichever variant is written first."""
    variants = {"wide": {"data": {"limit": 40}}, "base": {}}
    line = planned(save_recipe(tmp_path, variants=variants, baseline="base"))
    partitions = [role for role in line.results().inputs if role.startswith("partition")]
    assert partitions == ["partition base", "partition wide"]


def test_an_ensemble_does_not_depend_on_the_order_of_seeds(tmp_path: Path) -> None:
    recipe = save_recipe(tmp_path)
    one, other = (planned(recipe, f"seeds={seeds}").ensemble("a") for seeds in ("[0, 1]", "[1, 0]"))
    assert list(one.inputs) == list(other.inputs) == ["predictions a seed 0", "predictions a seed 1"]
    assert one.artifact == other.artifact


def test_a_spec_is_looked_at_once(tmp_path: Path) -> None:
    """A model's folder that changes while a line runs must not change what a manifest says of a key."""
    shutil.copytree(save_model(tmp_path / "model"), tmp_path / "copy")
    place = (f"roles.student={{name: {tmp_path / 'copy'}, dtype: float32}}",)
    step = planned(save_recipe(tmp_path), place=place).adapter(Member("a", 0))
    before = step.spec
    (tmp_path / "copy/config.json").write_text("{}")
    assert step.spec == before != step.work.spec()


def test_a_later_look_makes_only_what_more_seeds_change(tmp_path: Path) -> None:
    first, second, third = each_look(planned(save_recipe(tmp_path, seeds={"start": 3, "most": 5})))
    assert [len(look.members) for look in (first, second, third)] == [6, 8, 10]
    assert set(keys(first)["adapter"]) < set(keys(second)["adapter"])
    assert second.partition("a") is first.partition("a"), "what was resolved once is not looked at again"
    assert changed(first, second) == {"adapter", "predictions", "ensemble", "results"}
    assert third.results().inputs["results before"] == second.results().artifact
    assert second.results().inputs["results before"] == first.results().artifact
    assert "results before" not in first.results().inputs


def test_another_split_makes_nothing_of_the_source_anew(tmp_path: Path) -> None:
    recipe = save_recipe(tmp_path, splits=[4, 0, 9], seeds=[0, 1, 2])
    first, second, third = each_split(planned(recipe))
    assert [line.recipe.data.seed for line in (first, second, third)] == [4, 0, 9]
    assert second.curated("a") is first.curated("a")
    assert changed(first, second) == {"partition", "untrained", "adapter", "predictions", "ensemble", "results"}
    assert "results before" not in first.results().inputs
    assert third.results().inputs["results before"] == second.results().artifact
    alone = planned(recipe, "splits=[]", "data.seed=9")
    assert changed(alone, third) == {"results"}, "the members are those of a run of that split alone"


def test_what_changes_while_a_look_runs_is_no_matter_of_later_ones(tmp_path: Path) -> None:
    shutil.copytree(save_model(tmp_path / "model"), tmp_path / "copy")
    place = (f"roles.student={{name: {tmp_path / 'copy'}, dtype: float32}}",)
    recipe = save_recipe(tmp_path, seeds={"start": 3, "most": 5})
    looks = iter(each_look(planned(recipe, place=place)))
    first = next(looks).adapter(Member("a", 0))
    (tmp_path / "copy/config.json").write_text("{}")
    assert [look.adapter(Member("a", seed)).spec["model"] for seed, look in enumerate(looks, 3)] == [
        first.spec["model"], first.spec["model"],
    ]  # fmt: skip


def test_declared_looks_are_in_the_results_key_and_a_list_has_none(tmp_path: Path) -> None:
    listed = planned(save_recipe(tmp_path, seeds=[0, 1, 2]))
    ten, five = (planned(save_recipe(tmp_path, seeds={"start": 3, "most": most})) for most in (10, 5))
    assert changed(listed, ten) == {"results"}, "the same members, judged otherwise"
    assert changed(ten, five) == {"results"}
    assert each_look(listed) == [listed]
    assert any("adds seeds at 4, 5, 6, 8, 10 until" in note for note in notes_of(ten))


def test_a_variants_own_problem_changes_how_it_is_taught_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "shouted.py").write_text(
        "from reseed.problems.prompt_recovery import *\nfrom reseed.problems import prompt_recovery\n"
        "def completion(row): return prompt_recovery.completion(row).upper()\n"
    )
    one = planned(save_recipe(tmp_path, variants={"a": {}, "b": {"training": {"loss_on": "all"}}}))
    two = planned(
        save_recipe(tmp_path, variants={"a": {}, "b": {"problem": "shouted", "training": {"loss_on": "all"}}})
    )
    assert changed(one, two) == FROM_TRAINING
    assert keys(one)["adapter"][:2] == keys(two)["adapter"][:2], "a is as it was"
    assert keys(one)["predictions"][2:] != keys(two)["predictions"][2:], "b is asked and read otherwise"
    assert two.partition("a").artifact == two.partition("b").artifact


def test_split_seeds_are_members_of_their_own(tmp_path: Path) -> None:
    split = planned(save_recipe(tmp_path, seeds={"initialisation": [0, 1], "order": [0, 1]}))
    assert [str(member) for member in split.answering()][:4] == ["a seed 0.0", "a seed 0.1", "a seed 1.0", "a seed 1.1"]
    assert len({split.adapter(member).artifact for member in split.members}) == 8
    assert split.adapter(Member("a", 1, 0)).seed == 1
    assert split.adapter(Member("a", 1, 0)).spec["order"] == 0
    assert split.adapter(Member("a", 1, 0)).work.job().order_seed == 0
    assert "adapter a seed 1.0" in split.results().inputs
    assert "order" not in planned(save_recipe(tmp_path)).adapter(Member("a", 1)).spec


def test_a_variant_taught_by_another_problem_is_judged_by_the_recipes(tmp_path: Path) -> None:
    text = "from reseed.problems.prompt_recovery import *\n"
    (tmp_path / "shouted.py").write_text(text)
    (tmp_path / "whispered.py").write_text(f"{text}# as the other\n")
    variants = {"a": {}, "b": {"problem": "shouted"}}

    def judges(problem: str) -> list[ProblemModule | None]:
        recipe = save_recipe(tmp_path, problem=problem, variants=variants, training={"choose_by": "metric"}, seeds=[0])
        works = [planned(recipe).adapter(Member(name, 0)).work for name in variants]
        return [work.judge.problem for work in works if work.judge is not None]

    found = judges("prompt-recovery")
    assert found == [None, ProblemModule("prompt-recovery")]
    first = planned(str(tmp_path / "small.yaml"))
    assert first.adapter(Member("b", 0)).spec["judge"]["problem"] == "prompt-recovery"
    assert "problem" not in first.adapter(Member("a", 0)).spec["judge"], "so that keys do not move"
    assert [judge and judge.name for judge in judges("whispered")] == [None, "whispered"]
