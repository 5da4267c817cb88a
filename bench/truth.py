"""How often a verdict errs, and the verdicts of people's habits beside it: docs/truth.md rests on this table.

    .venv/bin/python bench/truth.py --write docs/benchmarks.md
    .venv/bin/python bench/truth.py --comparisons 300 --only "false calls,looks"    a part, quicker and less exact

Scores are drawn from noise models of which the truth is known, and each comparison is judged by reseed's own `compare`. The
numbers depend on --seed and --comparisons alone, not on the number of processes.
With --out, the file keeps the sections that a run leaves out, and the tables show those too.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import groupby, product
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
CHUNK = 250  # comparisons drawn at once: a process holds less than 0.5 GiB
Cells = dict[str, dict[str, tuple[float, int]]]  # cell → what was counted → its sum, and of how many
Job = tuple[str, tuple[int, ...], int, int, int]  # section, cell, chunk, comparisons, seed


def sections() -> dict[str, tuple[Callable[..., Any], list[tuple[int, ...]]]]:
    """Name → the function that draws and judges, and its cells."""
    from verdict import claims, rates
    from verdict import splits as over_splits
    from verdict.noise import ALL, MODELS

    models, groups, seeds = range(len(MODELS)), rates.GROUPS, rates.SEEDS
    return {
        "false calls": (rates.false_calls, list(product(range(len(ALL)), groups, seeds))),
        "power": (rates.true_calls, list(product(groups, seeds))),
        "ensembles": (claims.mean_ensembles, list(product([0, *models[5:8]], groups, seeds))),
        "log loss": (claims.class_ensembles, list(product(groups, seeds))),
        "families": (claims.families, list(product([0, 1], groups, seeds))),
        "looks": (claims.looks, [*product([0], groups), *product(models[1:], [30])]),
        "split seeds": (
            claims.split_seeds,
            list(product(range(len(claims.PARTS)), range(len(claims.SHAPES)), [30, 100])),
        ),
        "splits": (
            over_splits.splits,
            list(product(range(len(over_splits.PARTS)), over_splits.SPLITS, over_splits.SEEDS_OF_SPLITS)),
        ),
        "equivalence": (claims.equivalence, list(product(groups, seeds))),
        "constants": (claims.constants, [()]),
        "binary": (claims.binary, list(product([0, 1], [5, 10, 20], seeds))),
    }


def work(job: Job) -> tuple[str, tuple[int, ...], dict[str, tuple[float, int]]]:
    """In a process of its own: one chunk of a cell."""
    import numpy as np

    section, cell, chunk, count, seed = job
    draw = np.random.default_rng([seed, zlib.crc32(section.encode()), chunk, *cell])
    return section, cell, sections()[section][0](draw, count, *cell)


def jobs(wanted: Sequence[str], comparisons: int, seed: int) -> Iterator[Job]:
    for name in wanted:
        for cell in sections()[name][1]:
            for chunk, first in enumerate(range(0, comparisons, CHUNK)):
                yield name, cell, chunk, min(CHUNK, comparisons - first), seed


def simulated(wanted: Sequence[str], comparisons: int, seed: int, processes: int) -> Iterator[tuple[str, Cells]]:
    """Each section's cells and what was counted in them, added up over the chunks."""
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        done = pool.map(work, jobs(wanted, comparisons, seed), chunksize=4)
        for section, chunks in groupby(done, key=lambda one: one[0]):
            started, cells = time.monotonic(), dict[str, dict[str, tuple[float, int]]]()
            for _, cell, counted in chunks:
                kept = cells.setdefault(" ".join(map(str, cell)), {})
                for name, (total, count) in counted.items():
                    before = kept.get(name, (0.0, 0))
                    kept[name] = (before[0] + total, before[1] + count)
            print(f"{section}: {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
            yield section, cells


def measured_size(seed: int, members: int, rows: int) -> dict[str, float]:
    """In a process of its own, so that its peak is its own."""
    import numpy as np
    from verdict.size import large

    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(large, np.random.default_rng(seed), members, rows).result()


def commit() -> str:
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    changed = subprocess.run(
        ["git", "status", "--short", "-uno"], cwd=ROOT, capture_output=True, text=True
    ).stdout.strip()
    return (done.stdout.strip() or "unknown") + (" with changes" if changed else "")


def main() -> None:
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")  # the processes are the parallelism
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    sys.path.insert(0, str(ROOT))
    from pages import write
    from verdict.page import goals, page
    from verdict.size import MEMBERS, ROWS

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--comparisons", type=int, default=10_000, help="in each cell")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default=",".join(sections()), help="names with commas between them; of: %(default)s")
    parser.add_argument("--members", type=int, default=MEMBERS, help="of the large comparison")
    parser.add_argument("--rows", type=int, default=ROWS, help="of the large comparison")
    parser.add_argument("--out", type=Path, help="what was counted, as JSON")
    parser.add_argument("--write", type=Path, help="a Markdown page with the marks of the tables")
    options = parser.parse_args()
    wanted = options.only.split(",")
    if unknown := set(wanted) - set(sections()):
        parser.error(f"--only: no section is called {', '.join(sorted(unknown))}; there are {', '.join(sections())}")
    kept: dict[str, Any] = (
        json.loads(options.out.read_text()) if options.out and options.out.is_file() else {"sections": {}}
    )
    kept |= {"size": measured_size(options.seed, options.members, options.rows)}
    about = {"comparisons": options.comparisons, "seed": options.seed, "commit": commit()}
    for name, cells in simulated(wanted, options.comparisons, options.seed, options.processes):
        kept["sections"][name] = about | {"cells": cells}
        kept["goals"] = goals(kept)
        if options.out:
            options.out.write_text(json.dumps(kept, indent=1) + "\n")
    print(page(kept))
    if options.write:
        write(options.write, page(kept), "truth")


if __name__ == "__main__":
    main()
