"""An experiment: every variant trained over every seed, blended, scored, and reported with its lineage."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.futures import PrefectFuture

from flows.planning import check_rows, evidence_of, load_plan, questions_of, scored, stored_start
from reseed.profile import Profile
from reseed.recipe import Recipe
from reseed.records import Artifact, Member, Results
from reseed.stages import start_of, training_order
from tasks.generate import generate
from tasks.placement import stoppable
from tasks.predict import predict
from tasks.prepare import curate, import_rows, partition
from tasks.score import report, score
from tasks.train import train


@flow(name="experiment", flow_run_name="{recipe}")
def run_experiment(recipe: str = "quickstart", profile: str = "laptop", overrides: list[str] | None = None) -> Results:
    """Run the recipe of that name; what the store already has is not run again."""
    plan = load_plan(recipe, profile, overrides or [])
    partitions = {name: prepare(variant, plan.profile) for name, variant in plan.variants.items()}
    check_rows(plan, partitions)
    with stoppable():
        training: dict[Member, PrefectFuture[Artifact]] = {}
        for member in training_order(plan.recipe):
            variant, rows = plan.variants[member.variant], partitions[member.variant]
            before = start_of(variant, member)
            start: Any = training[before] if before is not None else stored_start(plan, member)  # Prefect waits for it
            training[member] = train.submit(variant, plan.profile, rows, member, start)
        adapters = scored(plan, {member: future.result() for member, future in training.items()})
    predictions = predict(plan.profile, questions_of(plan, partitions, adapters))
    artifact = score(plan.profile, plan.line.results, evidence_of(plan, partitions, adapters, predictions))
    return report(plan.profile, artifact)


def prepare(recipe: Recipe, profile: Profile) -> Artifact:
    """Rows from their source, or written by the generator; curated; split."""
    rows = import_rows(recipe, profile) if recipe.data.train else generate(recipe, profile)
    return partition(recipe, profile, curate(recipe, profile, rows))
