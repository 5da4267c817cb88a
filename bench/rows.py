"""Rows imported, curated and split: seconds and peak memory, at two sizes.

    .venv/bin/python bench/rows.py [--rows 10000 100000] [--out FILE]

Each size runs in a process of its own, on a CSV of rewrites of about 60 words, with the tokenizer of a profile's student. The
peak is the process's resident set, of which what it takes before the first row is told apart.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

HOLDOUT = {"fraction": 0.1, "group_by": "rewrite_prompt"}
WORDS = (
    "sea",
    "lay",
    "still",
    "boat",
    "came",
    "home",
    "with",
    "bread",
    "for",
    "all",
    "who",
    "waited",
    "old",
    "stone",
    "wall",
)


def save(folder: Path, rows: int) -> Path:
    """A recipe and its CSV."""
    draw = random.Random(0)
    with (folder / "rows.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["original_text", "rewritten_text", "rewrite_prompt"])
        for number in range(rows):
            text = " ".join(draw.choices(WORDS, k=30))
            table.writerow(
                [f"{number} {text}", f"{text.upper()} {number}", f"Shout it for reader {number % (rows // 20)}."]
            )
    data = {"train": str(folder / "rows.csv"), "validation": HOLDOUT, "test": dict(HOLDOUT)}
    recipe = {"name": "rows", "problem": "prompt-recovery", "question": "How long?", "data": data, "seeds": [0]}
    (folder / "rows.yaml").write_text(yaml.safe_dump(recipe))
    return folder / "rows.yaml"


def peak() -> float:
    """GiB that this process has had resident at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def measure(rows: int, profile: str) -> dict[str, float]:
    """The three steps, here."""
    from reseed.line import plan_line
    from reseed.models.cache import tokenizer_folder
    from reseed.models.tokenizers import load_tokenizer
    from reseed.recipe.profile import load_profile
    from reseed.recipe.reading import load_recipe
    from reseed.store.artifacts import ArtifactStore
    from tasks.run_once import make_here

    found: dict[str, float] = {"rows": rows}
    with tempfile.TemporaryDirectory() as folder:
        place = load_profile(profile, (f"store={folder}/store",))
        load_tokenizer(tokenizer_folder(place.student(None)))
        path = save(Path(folder), rows)
        found["GiB before"] = peak()
        line = plan_line(load_recipe(str(path)), place, ArtifactStore(place.store))
        for step in line.preparing():
            began = time.perf_counter()
            make_here(line.store, step)
            found[f"{step.verb} s"] = time.perf_counter() - began
        found["ms a row"] = 1000 * sum(value for name, value in found.items() if name.endswith(" s")) / rows
    return found | {"GiB at most": peak()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--profile", default="laptop", help="whose tokenizer counts")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--one", action="store_true", help="measure the first size here")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.rows[0], options.profile)))
        return
    found = []
    for rows in options.rows:
        command = [sys.executable, __file__, "--one", "--rows", str(rows), "--profile", options.profile]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        found.append(json.loads(done.stdout.splitlines()[-1]))
        print("  ".join(f"{name} {value:.3g}" for name, value in found[-1].items()), flush=True)
    if options.out:
        options.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
