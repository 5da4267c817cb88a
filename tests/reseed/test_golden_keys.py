"""The keys of whole lines as they were: a store that somebody filled yesterday is found again today.

A key that has to move needs a decision that says why. Then: PYTHONPATH=.:tests python tests/reseed/test_golden_keys.py
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from plain_step import plain_step

from reseed.files import write_atomically
from reseed.line import plan_line
from reseed.network.commits import note_of
from reseed.recipe.profile import load_profile
from reseed.recipe.reading import load_recipe
from reseed.store.artifacts import ArtifactStore

KEYS = Path(__file__).with_name("golden_keys.json")
HOLDOUT = {"fraction": 0.2, "group_by": "rewrite_prompt"}
EXPERTS = ["q_proj", "v_proj", "gate_proj", "up_proj", "down_proj"]
COMMIT = "c0ffee" + "0" * 34
BASE: dict[str, Any] = {
    "name": "golden",
    "problem": "prompt-recovery",
    "question": "Which keys are these?",
    "generation": {"rows": 64, "shard_rows": 32},
    "data": {"validation": HOLDOUT, "test": HOLDOUT},
    "model": "mistralai/Mixtral-8x7B-Instruct-v0.1",
    "seeds": [0, 1],
}
RECIPES: dict[str, dict[str, Any]] = {
    "looks": {"seeds": {"start": 3, "most": 5}},
    "split seeds": {"seeds": {"initialisation": [0, 1], "order": [0, 1]}},
    "variants": {
        "variants": {
            "one": {}, "two": {"training": {"loss_on": "all"}}, "three": {"data": {"limit": 40}},
            "four": {"generation": {"temperature": 0.5}}, "five": {"prediction": {"max_new_tokens": 8}},
        },
        "baseline": "two", "constants": ["Improve this."],
    },
    "stages": {
        "training": {"keep_optimizer": True},
        "variants": {"late": {"training": {"start_from": "early"}}, "early": {"data": {"limit": 20}}, "alone": {}},
    },
    "four bit, experts, chat, metric": {
        "training": {"targets": EXPERTS, "prompt_format": "chat", "system": "Be brief."},
        "variants": {
            "lora": {}, "qlora": {"training": {"method": "qlora"}},
            "double": {"training": {"method": "qlora", "double_quantization": True, "choose_by": "metric"}},
        },
    },
    "many": {
        "variants": {f"rate-{n}": {"training": {"learning_rate": n / 10_000}} for n in range(1, 10)},
        "seeds": [0, 1, 2, 3, 4],
    },
    "dataset": {"generation": None, "data": {**BASE["data"], "train": "rows@latest"}},
    "file": {
        "generation": None,
        "data": {**BASE["data"], "train": "rows.csv", "columns": {"rewrite_prompt": "prompt"}, "limit": 3, "seed": 7},
    },
    "hub": {"generation": None, "data": {**BASE["data"], "train": f"owner/rows@{COMMIT}", "config": "small", "split": "all"}},
}  # fmt: skip
BF16 = ("roles.generator.dtype=bfloat16", "roles.student.dtype=bfloat16")  # not what this machine's CPU computes in
ON_THE_HUB = ("google/gemma-2-9b-it", "mistralai/Mixtral-8x7B-Instruct-v0.1", "sentence-transformers/sentence-t5-base")
SHIPPED = ("quickstart", "rewrites", "prompt-recovery")


def plan(recipe: str, profile: str) -> list[str]:
    """Verb and place of every step that is planned in the working folder."""
    place = load_profile(profile, ("store=store", *(BF16 if profile == "laptop" else ())))
    here = ("data.train=rows.csv",) if recipe == "prompt-recovery" else ()  # its rows are at an address
    line = plan_line(load_recipe(recipe, here, place.name), place, ArtifactStore(place.store))
    assert line.unpinned == ()
    return sorted(f"{step.verb} {step.artifact.path}" for step in line.steps())


def all_keys(folder: Path) -> dict[str, list[str]]:
    """Every case's steps, where the hub says `COMMIT` of every model."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RESEED_CACHE", str(folder / "cache"))
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        for model in ON_THE_HUB:
            write_atomically(note_of(model, "main", "model"), COMMIT.encode())
        return keys_of_cases(folder)


def keys_of_cases(folder: Path) -> dict[str, list[str]]:
    """Every case's steps."""
    (folder / "rows.csv").write_text("original_text,rewritten_text,prompt\na,b,c\n")
    (folder / "rows").mkdir()
    (folder / "rows/rows.jsonl").write_text("{}\n")
    store = ArtifactStore("store")
    made = store.write(plain_step("publish", 1, "dataset", "rows", {"date": "2026-11-27"}), folder / "rows")
    store.point("dataset", "rows", "latest", made)
    found = {
        f"{name} on {profile}": plan(name, profile) for name in SHIPPED for profile in ("laptop", "gpu", "cluster")
    }
    for name, changes in RECIPES.items():
        values = {key: value for key, value in (BASE | changes).items() if value is not None}
        Path("golden.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
        found |= {f"{name} on {profile}": plan("golden.yaml", profile) for profile in cases(name)}
    return found


def cases(name: str) -> tuple[str, ...]:
    """The profiles on which a recipe is planned: 4 bit needs a GPU."""
    return ("gpu",) if name.startswith("four") else ("laptop",) if name == "many" else ("laptop", "gpu")


def test_keys_are_what_they_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert all_keys(tmp_path) == json.loads(KEYS.read_text())


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        os.chdir(made)
        KEYS.write_text(json.dumps(all_keys(Path(made)), indent=0) + "\n")
    sys.stdout.write(f"wrote {KEYS}\n")
