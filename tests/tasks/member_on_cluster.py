"""Train one member of a tiny recipe on the Ray that RAY_ADDRESS names: PROFILE RECIPE.

The last two lines say what the checkpoints held, and where the adapter is.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from tiny import THINGS

from reseed.data.rows import write_rows
from reseed.line import training_of
from reseed.problems import load_problem
from reseed.recipe.profile import load_profile
from reseed.recipe.reading import load_recipe
from reseed.records import Artifact, Member
from reseed.steps.rows import Partition
from reseed.store.artifacts import ArtifactStore
from reseed.store.step import Step
from tasks.train import train

discard = ArtifactStore.discard_scratch


def tell_and_discard(store: ArtifactStore, name: str) -> None:
    """Say what each checkpoint that is left of the member holds, before it goes."""
    left = Path(store.scratch(name)).glob("*/origin.json")
    held = {path.parent.name: sorted(file.name for file in path.parent.rglob("*")) for path in left}
    if held:
        print(json.dumps(held))
    discard(store, name)


def main(profile_path: str, recipe_path: str) -> None:
    profile, recipe = load_profile(profile_path), load_recipe(recipe_path)
    problem = load_problem(recipe.problem)
    rows = [
        problem.row(f"The {a} lay beside the {b}.", f"Rewrite this as a letter to the {a}.", f"Dear {a}, where is {b}?")
        for a in THINGS
        for b in THINGS[:4]
    ]
    with tempfile.TemporaryDirectory() as folder:
        for part, count in (("train", rows[:40]), ("validation", rows[40:44]), ("test", rows[44:])):
            write_rows(Path(folder) / f"{part}.parquet", count)
        partitioning = Step(
            Partition(recipe.data), recipe.name, {"curated": Artifact("curated", recipe.name, "made-by-hand")}
        )
        partition = ArtifactStore(profile.store).write(partitioning, Path(folder))
    ArtifactStore.discard_scratch = tell_and_discard  # type: ignore[method-assign]
    work = training_of(recipe.variant("default"), profile, Member("default", 0), recipe.problem)
    print(train.fn(profile, Step(work, "tiny-default", {"partition": partition}, 0)).path)


if __name__ == "__main__":
    main(*sys.argv[1:])
