"""Report: show a result on the dashboard, in the log and on W&B."""

from __future__ import annotations

from prefect import task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE

from reseed.evaluation.experiment import KIND, load_results, make_latest
from reseed.recipe.profile import Profile
from reseed.reporting.markdown import markdown_text, pictured_report
from reseed.reporting.verdict import verdict_lines
from reseed.results import Results
from reseed.steps.score import Report, Score
from reseed.store.artifacts import ArtifactStore
from reseed.store.step import Step
from reseed.text import one_line
from reseed.training.tracking import TrackedRun, find_account, reference, track_results
from tasks.progress import artifact_key
from tasks.run_once import log, make_here


@task(cache_policy=NO_CACHE, task_run_name="report")
def report(place: Profile, scored: Step[Score], pages: Step[Report]) -> Results:
    """Make the pages of a stored result, point its experiment's `latest` at it, and show it."""
    store, split = ArtifactStore(place.store), scored.work.asked.split
    make_latest(store, scored.artifact, always=split is not None and split.number == split.of)
    results = load_results(store, scored.artifact)
    make_here(store, pages)
    show(results)
    for line in verdict_lines(results):
        log().info("%s", line)
    log().info("report: %s", store.fetch(pages.artifact) / "report.html")
    track(store, scored, results)
    return results


def track(store: ArtifactStore, step: Step[Score], results: Results) -> None:
    """The experiment's own run of Weights & Biases, once a result. A ref in the store says that it is written: a flow
    that is killed before leaves it to the next one, and pages that are made again are no reason for a second run."""
    tracked = f"tracked-{step.artifact.key}"
    if store.ref(KIND, step.name, tracked) is not None:
        return
    run = TrackedRun(step.artifact, results.experiment, f"{results.experiment} results", "results", step.spec)
    inputs = [reference(store, made) for role, made in step.inputs.items() if role.startswith(("partition", "adapter"))]
    try:
        account = find_account()
        warning = track_results(run, results, inputs, account)
    except Exception as error:  # W&B has more kinds of errors than one base class; none is worth the flow's end
        log().warning("Weights & Biases: the experiment's own run was not written: %s", error)
        return
    if warning:
        log().warning(warning)
    if account.mode == "disabled":
        return
    store.move_ref(KIND, step.name, tracked, step.artifact, expected=None)


def show(results: Results) -> None:
    """Show the table and the page, with its pictures, on the dashboard."""
    rows = [
        {"variant": one_line(v.name), **{f"seed {m.run}": round(m.score, 4) for m in v.members}, "mean": round(v.mean, 4),
         "std": round(v.std, 4) if v.std is not None else None, "ensemble": round(v.ensemble, 4)}
        for v in results.variants
    ]  # fmt: skip
    rows.append({"variant": "untrained", "mean": round(results.untrained, 4)})
    create_table_artifact(
        rows,
        key=artifact_key(f"{results.experiment}-scores"),
        description=markdown_text(f"{results.metric} on {results.rows} held-out rows"),
    )
    create_markdown_artifact(
        pictured_report(results),
        key=artifact_key(f"{results.experiment}-report"),
        description=markdown_text(results.question),
    )
