"""The trainer as a flow runs it: Ray Train places one worker, which trains under DeepSpeed with nccl."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from gpu.setup import Row, Setup, mixtral, text_rows, tried

from reseed.data.rows import write_rows


def trainer(setup: Setup) -> Iterator[Row]:
    """One member in NF4, from rows in a store to an adapter in it."""
    yield tried("gloo" if setup.device.type == "cpu" else "nccl", lambda: member(setup))


def member(setup: Setup) -> Row:
    """Its manifest's numbers."""
    from reseed.line import training_of
    from reseed.recipe.profile import load_profile
    from reseed.recipe.reading import load_recipe
    from reseed.records import Artifact, Member
    from reseed.steps.rows import Partition
    from reseed.store.artifacts import ArtifactStore
    from reseed.store.step import Step
    from tasks.train import train

    place = setup.own("placed")
    profile, recipe = load_profile(str(profile_file(setup, place))), load_recipe(str(recipe_file(place)))
    store, parts = ArtifactStore(profile.store), setup.own("placed/parts")
    rows = text_rows(60, words=8 if setup.tiny else 40)
    for part, some in (("train", rows[:48]), ("validation", rows[48:56]), ("test", rows[56:])):
        write_rows(parts / f"{part}.parquet", some)
    curated = Artifact("curated", recipe.name, "made-by-hand")
    partition = store.write(Step(Partition(recipe.data), recipe.name, {"curated": curated}, recipe.data.seed), parts)
    work = training_of(recipe.variant("default"), profile, Member("default", 0), recipe.problem)
    started = time.perf_counter()
    made = train.fn(profile, Step(work, "day-default", {"partition": partition}, 0))
    metrics = store.manifest(made).metrics
    shown = {"steps": metrics["steps"], "best loss": metrics["best_loss"], "logits moved by": metrics["logit_shift"]}
    return {**shown, "s": time.perf_counter() - started}


def profile_file(setup: Setup, place: Path) -> Path:
    """A profile of one worker."""
    model = {"name": mixtral(setup).name}
    workers: dict[str, Any] = {"workers": 1, "micro_batch_size": 2, "gpus": int(setup.device.type == "cuda")}
    profile = {
        "name": "day", "store": str(place / "store"), "roles": {"generator": model, "student": model, "embedder": model},
        "training": workers,
    }  # fmt: skip
    return written(place / "day-profile.yaml", profile)


def recipe_file(place: Path) -> Path:
    """A recipe of six steps."""
    held = {"fraction": 0.1, "group_by": "rewrite_prompt"}
    training = {"method": "qlora", "batch_size": 8, "evaluate_every": 3, "learning_rate": 1e-3, "max_tokens": 320}
    recipe = {
        "name": "day", "problem": "prompt-recovery", "question": "Does it train?", "seeds": [0], "training": training,
        "data": {"train": "rows.csv", "validation": held, "test": dict(held)}, "model": "day",
    }  # fmt: skip
    return written(place / "day-recipe.yaml", recipe)


def written(path: Path, value: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(value))
    return path
