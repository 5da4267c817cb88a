"""Generate: prompts × passages through a pool of engines, in shards that are each committed when done."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from reseed.data.sources import Pair, draw_pairs
from reseed.files import read_jsonl, write_jsonl
from reseed.line import generate_step, shard_size, shard_steps
from reseed.problems import load_problem
from reseed.profile import Profile
from reseed.recipe import Recipe
from reseed.records import Artifact, Prompt, ReseedError, Sampling
from reseed.steps import Step
from reseed.store import ArtifactStore
from tasks.placement import Job, engine_pool
from tasks.progress import progress
from tasks.run_once import run_once


@task(cache_policy=NO_CACHE, task_run_name="generate")
def generate(recipe: Recipe, profile: Profile) -> Artifact:
    """The raw synthetic rows of a recipe: `rows.jsonl`, each row with how its generation ended."""
    store = ArtifactStore(profile.store)
    if recipe.generation is None:
        raise ReseedError(f"recipe '{recipe.name}': it has no generation section, so there is nothing to generate")
    shards = shard_steps(recipe, profile)
    size = shard_size(recipe.generation, profile)
    pairs = draw_pairs(recipe.generation)
    of_shard = {step.artifact: pairs[i * size : (i + 1) * size] for i, step in enumerate(shards)}
    missing = [step for step in shards if store.find(step.artifact) is None]
    write_shards(recipe, profile, store, missing, of_shard)

    def join(folder: Path) -> dict[str, Any]:
        rows = [row for step in shards for row in read_jsonl(store.fetch(step.artifact) / "rows.jsonl")]
        write_jsonl(folder / "rows.jsonl", rows)
        return {"rows": len(rows), "tokens": sum(int(row["tokens"]) for row in rows)}

    return run_once(store, generate_step(recipe, shards), join)


def write_shards(
    recipe: Recipe, profile: Profile, store: ArtifactStore, steps: Sequence[Step], of_shard: dict[Artifact, list[Pair]]
) -> None:
    """Generate the shards that the store does not have, each committed as soon as it is done."""
    if not steps or recipe.generation is None:
        return
    problem, settings = load_problem(recipe.problem), recipe.generation
    sampling = Sampling(settings.max_new_tokens, settings.temperature, settings.top_p)
    jobs = [
        Job(
            id=step.artifact.key,
            prompts=tuple(Prompt(p.id, problem.request(p.source, p.instruction)) for p in of_shard[step.artifact]),
            sampling=sampling,
            seed=settings.seed + 1_000_003 * step.spec["shard"],
            chat=True,
        )
        for step in steps
    ]
    by_key = {step.artifact.key: step for step in steps}
    started = time.monotonic()
    with (
        engine_pool(profile, profile.roles.generator, len(jobs)) as pool,
        progress("generate: rows", sum(len(job.prompts) for job in jobs)) as shown,
    ):
        tokens = 0
        for job, answers in pool.run(jobs):
            step = by_key[job.id]
            given = {answer.id: answer for answer in answers}
            rows = [
                {
                    **problem.row(pair.source, pair.instruction, given[pair.id].text),
                    "finish": given[pair.id].finish,
                    "tokens": str(given[pair.id].tokens),
                }
                for pair in of_shard[step.artifact]
            ]
            run_once(store, step, partial(write_rows, rows))
            tokens += sum(answer.tokens for answer in answers)
            shown.advance(len(rows), f"{tokens / (time.monotonic() - started):.0f} tokens/s")


def write_rows(rows: Sequence[dict[str, str]], folder: Path) -> dict[str, Any]:
    """One shard's file."""
    write_jsonl(folder / "rows.jsonl", rows)
    return {"rows": len(rows)}
