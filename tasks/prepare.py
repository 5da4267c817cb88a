"""Import, curate, partition: small steps on rows, done where the flow runs."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from reseed.data.curation import curate as curate_rows
from reseed.data.partition import partition as partition_rows
from reseed.data.sources import read_source, resolve_source
from reseed.data.statistics import dataset_stats
from reseed.files import read_jsonl, write_jsonl
from reseed.line import curate_step, import_step, partition_step
from reseed.models.cache import tokenizer_folder
from reseed.models.tokenizers import load_tokenizer
from reseed.problems import load_problem
from reseed.profile import Profile
from reseed.recipe import Recipe
from reseed.records import Artifact, ReseedError
from reseed.store import ArtifactStore
from tasks.run_once import log, run_once


@task(cache_policy=NO_CACHE, task_run_name="import")
def import_rows(recipe: Recipe, profile: Profile) -> Artifact:
    """The rows that `data.train` names, copied into the store."""
    store = ArtifactStore(profile.store)
    if recipe.data.train is None:
        raise ReseedError(f"recipe '{recipe.name}': data.train is empty")
    source = resolve_source(recipe.data.train, store)

    def work(folder: Path) -> dict[str, Any]:
        rows = read_source(source, store, load_problem(recipe.problem), recipe.data.columns)
        write_jsonl(folder / "rows.jsonl", rows)
        return {"rows": len(rows), "source": Path(source.given).name}

    return run_once(store, import_step(recipe, source), work)


@task(cache_policy=NO_CACHE, task_run_name="curate")
def curate(recipe: Recipe, profile: Profile, rows: Artifact) -> Artifact:
    """The rows fit to train on: `rows.jsonl`; the dataset table and what was dropped are the manifest's metrics."""
    store = ArtifactStore(profile.store)

    def work(folder: Path) -> dict[str, Any]:
        problem = load_problem(recipe.problem)
        raw = read_jsonl(store.fetch(rows) / "rows.jsonl")
        finishes = {row["id"]: row.pop("finish", "stop") for row in raw}
        for row in raw:
            row.pop("tokens", None)
        curated = curate_rows(raw, finishes, problem)
        write_jsonl(folder / "rows.jsonl", curated.rows)
        tokenizer = load_tokenizer(tokenizer_folder(profile.student(recipe.model)))
        stats = dataset_stats(curated.rows, problem, tokenizer, curated.dropped)
        log().info("curate: %d of %d rows kept, dropped: %s", stats.n, len(raw), stats.dropped or "none")
        return asdict(stats)

    return run_once(store, curate_step(recipe, profile, rows), work)


@task(cache_policy=NO_CACHE, task_run_name="partition")
def partition(recipe: Recipe, profile: Profile, curated: Artifact) -> Artifact:
    """`train.jsonl`, `validation.jsonl`, `test.jsonl`."""
    store = ArtifactStore(profile.store)

    def work(folder: Path) -> dict[str, Any]:
        parts = partition_rows(read_jsonl(store.fetch(curated) / "rows.jsonl"), recipe.data)
        sizes = {}
        for name, rows in asdict(parts).items():
            write_jsonl(folder / f"{name}.jsonl", rows)
            sizes[name] = len(rows)
        log().info("partition: %s", ", ".join(f"{count} {name}" for name, count in sizes.items()))
        return sizes

    return run_once(store, partition_step(recipe, curated), work)
