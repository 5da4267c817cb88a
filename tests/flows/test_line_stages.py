"""A line in stages, through the real command: a variant that continues another's members on other rows.

Its problem is a file beside the recipe, which is all that Ray's workers know of it.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from line_project import LineProject, manifests
from tiny import save_recipe

pytestmark = pytest.mark.slow
PROBLEM = """
columns = ("original_text", "rewritten_text", "rewrite_prompt")
metric = "words"
higher_is_better = True

def prompt(row): return row["rewritten_text"]
def completion(row): return " " + row["rewrite_prompt"]
def parse(text): return text.strip().upper()
def scores(answers, rows, embed):
    return [len({*a.split()} & {*row["rewrite_prompt"].upper().split()}) for a, row in zip(answers, rows)]
"""
HOLDOUT = {"fraction": 0.25, "group_by": "rewrite_prompt"}


def save_rows(path: Path, verb: str) -> str:
    """24 rows with eight prompts of this verb."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("original_text", "rewritten_text", "rewrite_prompt"))
        writer.writerows((f"The boat number {i}.", f"Oh, {verb} {i}!", f"{verb} about the {i % 8}.") for i in range(24))
    return path.name


def test_a_line_in_stages(served: LineProject) -> None:
    first, second = (save_rows(served.folder / f"{verb}.csv", verb) for verb in ("Sing", "Shout"))
    for folder in ("staged", "later"):
        (served.folder / folder).mkdir()
        (served.folder / folder / "singing.py").write_text(PROBLEM)
    training = {"learning_rate": 0.01, "batch_size": 4, "evaluate_every": 2, "keep_optimizer": True}
    recipe = save_recipe(
        served.folder / "staged",
        name="staged",
        problem="singing",
        generation=None,
        data={"train": second, "validation": HOLDOUT, "test": HOLDOUT},
        training=training,
        variants={
            "after": {"training": {"start_from": "before"}},
            "before": {"data": {"train": first}},
        },
        baseline="after",
    )
    command = ("run", str(recipe), "--profile", "tiny.yaml", "--set", "profile.store=staged-store")
    code, output = served.run(*command, "--set", f"variants.before.data={{train: {second}, seed: 5}}")
    assert code == 2, output
    assert "variant 'after': " in output
    assert "rewrite_prompt with, rows that 'before', where it starts, is trained on" in output
    assert not list((served.folder / "staged-store").glob("adapter/*")), "nothing was trained before it was noticed"

    code, output = served.run(*command)
    assert code == 0, output
    found = manifests(served.folder / "staged-store")
    adapters = {path.split("/")[1]: (path, manifest) for path, manifest in found.items() if path.startswith("adapter/")}
    before, after = adapters["staged-before"], adapters["staged-after"]
    assert after[1]["inputs"]["start"] == before[0]
    assert {file["path"] for file in after[1]["files"]} == {
        "adapter/adapter_config.json", "adapter/adapter_model.safetensors", "curve.jsonl", "optimizer.safetensors",
    }  # fmt: skip
    assert "start" not in before[1]["inputs"]
    assert sum(path.startswith("predictions/") for path in found) == 2, "the last stage and the untrained student"
    later = save_recipe(
        served.folder / "later",
        name="later",
        problem="singing",
        generation=None,
        data={"train": second, "validation": HOLDOUT, "test": HOLDOUT},
        training=training | {"start_from": before[0][:-20]},
    )
    code, output = served.run("run", str(later), *command[2:])
    assert code == 0, output
    found = manifests(served.folder / "staged-store")
    (gone_on,) = (manifest for path, manifest in found.items() if path.startswith("adapter/later-default/"))
    assert gone_on["inputs"]["start"] == before[0]
    assert gone_on["metrics"]["adapter_digest_start"] == after[1]["metrics"]["adapter_digest_start"]
    code, output = served.run("results", "staged", "--json", "--profile", "tiny.yaml", "--set", command[-1])
    result = json.loads(output)
    assert [variant["name"] for variant in result["variants"]] == ["after"]
    assert (result["problem"], result["metric"]) == ("singing", "words")
    identity = {manifest["spec"]["problem"] for manifest in found.values() if "problem" in manifest["spec"]}
    assert len(identity) == 1, "both recipes have the same module beside them"
    assert identity.pop().startswith("singing@")
    (answers, *_) = (path for path in found if path.startswith("predictions/"))
    text = next((served.folder / "staged-store" / answers).rglob("predictions.jsonl")).read_text()
    assert all(json.loads(line)["answer"] == json.loads(line)["text"].strip().upper() for line in text.splitlines())
