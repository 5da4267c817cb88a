"""Seeds that are added until it is decided, and several splits of the rows, through the real command."""

from __future__ import annotations

import json

import pytest
from line_project import LineProject, manifests
from tiny import save_recipe

pytestmark = pytest.mark.slow


def test_seeds_are_added_until_it_is_decided_and_splits_take_the_members_that_are_there(served: LineProject) -> None:
    folder = served.folder / "looks"
    folder.mkdir()
    training = {"epochs": 1, "learning_rate": 0.01, "batch_size": 16, "evaluate_every": 9, "max_tokens": 512}
    recipe = save_recipe(folder, name="looks", training=training, seeds={"start": 3, "most": 4})
    own = ("--profile", "tiny.yaml", "--set", "profile.store=looks-store", "--set", "generation.passages=passages.txt",
           "--set", "generation.prompts=prompts.txt")  # fmt: skip
    code, output = served.run("run", str(recipe), *own, "--until-decided")
    assert code == 0, output
    code, shown = served.run(
        "results", "looks", "--json", "--profile", "tiny.yaml", "--set", "profile.store=looks-store"
    )
    found = json.loads(shown)
    looks = [(look["seeds"], look["a"], look["b"]) for look in found["looks"]]
    assert looks in ([(3, "default", "untrained")], [(3, "default", "untrained"), (4, "default", "untrained")])
    decided = [look["verdict"] not in (None, "undecided") for look in found["looks"]]
    assert not any(decided[:-1]), "it stops at the first look that decides it"
    assert decided[-1] or len(looks) == 2, "or at the last one"
    assert f"Judged at {looks[-1][0]} of at most 4 seeds." in output
    made = manifests(served.folder / "looks-store")
    kinds = [path.split("/")[0] for path in made]
    assert (kinds.count("adapter"), kinds.count("results")) == (looks[-1][0], len(looks))
    code, output = served.run("run", str(recipe), *own, "--set", "seeds=[0,1,2]", "--set", "splits=[0,1]")
    assert code == 0, output
    assert "Over 2 splits of 3 seeds, default − untrained: " in output
    new = [path.split("/")[0] for path in manifests(served.folder / "looks-store") if path not in made]
    assert (new.count("adapter"), new.count("partition"), new.count("results")) == (3, 1, 2), (
        "the first split's are there"
    )
    assert not {"shard", "rows", "curated"} & set(new)
