"""One experiment twice in one run: through Prefect, Ray and the store, and as a bare sequential script.

    .venv/bin/python bench/line.py [--rounds N] [--out FILE]

Both do the same work with the same core functions: generate, curate, partition, train every seed, predict, score. The
bare script is one process with all cores, no Prefect, no Ray, no DeepSpeed, no store, no resume. Rounds alternate; each
side begins with warm model caches and an empty store. Memory is the sum over all processes of the side (PSS).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from reseed.data.partition import Partition
    from reseed.problems import Problem
    from reseed.recipe.profile import Profile
    from reseed.recipe.recipe import Recipe

RECIPE, PROFILE = "rewrites", "laptop"


def bare() -> dict[str, float]:
    """Everything in this process; returns the scores, to show that the work was done."""
    from reseed.evaluation.answers import blend
    from reseed.evaluation.comparisons import Rule, all_comparisons
    from reseed.evaluation.score_table import UNTRAINED, ensemble_column
    from reseed.evaluation.scoring import Scorer, score_all
    from reseed.language.embedding import load_embedder
    from reseed.problems import load_problem
    from reseed.recipe.profile import load_profile
    from reseed.recipe.reading import load_recipe
    from reseed.records import Member

    recipe, profile = load_recipe(RECIPE, (), PROFILE), load_profile(PROFILE)
    problem = load_problem(recipe.problem)
    parts = generated_parts(recipe, profile, problem)
    with tempfile.TemporaryDirectory() as folder:
        for seed in recipe.seeds:
            train_seed(recipe, profile, problem, parts, seed, Path(folder))
        adapters = [None, *(Path(folder) / f"{seed}/best/adapter" for seed in recipe.seeds)]
        untrained, *answers = predict(recipe, profile, problem, parts, adapters)
    members = {Member("default", seed): own for seed, own in zip(recipe.seeds, answers, strict=True)}
    scorer = Scorer(problem, list(parts.test), load_embedder(profile.roles.embedder))
    groups = parts.test.column(recipe.data.test.group_by)
    blends = {"default": blend(problem, answers)}
    table, _ = score_all(scorer, groups, untrained, members, blends, recipe.constants, parts.train)
    all_comparisons(table, "default", recipe.constants, Rule(problem.higher_is_better))
    scores = table.columns
    return {
        "untrained": float(scores[UNTRAINED].mean()),
        "ensemble": float(scores[ensemble_column("default")].mean()),
        "rows": len(parts.train),
    }


def generated_parts(recipe: Recipe, profile: Profile, problem: Problem) -> Partition:
    """Rows from the generator, curated and partitioned."""
    from reseed.data.curation import curate
    from reseed.data.partition import partition
    from reseed.data.rows import rows_of
    from reseed.generation.engines.transformers_engine import TransformersEngine
    from reseed.generation.pairs import draw_pairs
    from reseed.line import shard_size
    from reseed.records import Prompt, Sampling

    settings = recipe.generation
    assert settings is not None
    pairs = draw_pairs(settings)
    engine = TransformersEngine(profile.roles.generator, profile.engines.batch_size)
    sampling = Sampling(settings.max_new_tokens, settings.temperature, settings.top_p)
    answers = []
    size = shard_size(settings, profile)
    for start in range(0, len(pairs), size):
        shard = pairs[start : start + size]
        prompts = [engine.chat(Prompt(p.id, problem.request(p.source, p.instruction))) for p in shard]
        answers += engine.generate(prompts, sampling, settings.seed + start)
    rows = [problem.row(p.source, p.instruction, a.text) for p, a in zip(pairs, answers, strict=True)]
    ended = [{**row, "finish": answer.finish} for row, answer in zip(rows, answers, strict=True)]
    return partition(rows_of(curate(ended, problem, Counter())), recipe.data)


def train_seed(recipe: Recipe, profile: Profile, problem: Problem, parts: Partition, seed: int, folder: Path) -> int:
    """Train a seed's adapter below `folder`; return its best step."""
    from reseed.recipe.profile import student
    from reseed.training.job import Silent, TrainJob
    from reseed.training.loop import train

    work = folder / str(seed)
    work.mkdir()
    model, micro = student(recipe.variant("default"), profile), profile.training.micro_batch_size
    job = TrainJob(model, recipe.training, seed, world=1, micro_batch_size=micro, deepspeed=False)
    summary = train(job, problem, parts.train, parts.validation, work, Silent())
    assert summary is not None
    return summary.best_step


def predict(
    recipe: Recipe, profile: Profile, problem: Problem, parts: Partition, adapters: Sequence[Path | None]
) -> list[dict[str, str]]:
    """Answers to the held-out rows with each adapter."""
    from reseed.generation.engines.transformers_engine import TransformersEngine
    from reseed.recipe.profile import student
    from reseed.records import Sampling

    engine = TransformersEngine(student(recipe.variant("default"), profile), profile.engines.batch_size)
    greedy = Sampling(recipe.prediction.max_new_tokens)
    prompts = [engine.question(problem, row, greedy, recipe.training.max_tokens) for row in parts.test]
    return [
        {answer.id: problem.parse(answer.text) for answer in engine.generate(prompts, greedy, 0, adapter)}
        for adapter in adapters
    ]


def memory(root: psutil.Process) -> int:
    """The proportional set size of a process and all its descendants, in bytes: shared pages count once."""
    total = 0
    for process in [root, *root.children(recursive=True)]:
        try:
            total += process.memory_full_info().pss
        except psutil.Error:
            continue
    return total


def timed(command: list[str], environment: dict[str, str]) -> tuple[float, float]:
    """Seconds and peak GiB of a command and everything that it starts."""
    started = time.monotonic()
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT)
    peak, done = 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        root = psutil.Process(process.pid)
        while not done.wait(2.0):
            try:
                peak = max(peak, memory(root))
            except psutil.Error:
                return

    watcher = threading.Thread(target=watch)
    watcher.start()
    code = process.wait()
    done.set()
    watcher.join()
    if code != 0:
        sys.exit(f"{' '.join(command)} ended with {code}")
    return time.monotonic() - started, peak / 2**30


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bare", action="store_true", help="only the bare script, here")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.bare:
        print(json.dumps(bare()))
        return
    rounds = []
    for number in range(options.rounds):
        with tempfile.TemporaryDirectory() as store:
            line = [str(Path(sys.executable).parent / "reseed"), "run", RECIPE, "--set", f"profile.store={store}"]
            sides = {"bare": [sys.executable, __file__, "--bare"], "line": line}
            order = list(sides) if number % 2 == 0 else list(sides)[::-1]
            measured = {side: timed(sides[side], dict(os.environ)) for side in order}
        rounds.append(measured)
        for side, (seconds, gib) in measured.items():
            print(f"round {number + 1}: {side:4} {seconds:6.0f} s, peak {gib:.1f} GiB", flush=True)
    ratios = [measured["line"][0] / measured["bare"][0] for measured in rounds]
    print(f"line / bare: median {statistics.median(ratios):.2f} of {[round(ratio, 2) for ratio in ratios]}")
    if options.out:
        options.out.write_text(json.dumps(rounds, indent=1) + "\n")


if __name__ == "__main__":
    main()
