"""Score and report: answers become a result, and the result becomes pages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE

from reseed.evaluation.experiment import KIND, Evidence, evaluate, load_results, save_results
from reseed.profile import Profile
from reseed.records import Artifact, Results
from reseed.reporting.html import html_report
from reseed.reporting.markdown import markdown_report, markdown_text
from reseed.reporting.tables import verdict
from reseed.steps import Step
from reseed.store import ArtifactStore
from reseed.text import one_line
from reseed.tracking import TrackedRun, find_account, reference, track_results
from tasks.cluster import connect, without_gpu
from tasks.mistakes import unwrapped
from tasks.placement import store_url
from tasks.progress import artifact_key
from tasks.run_once import log, run_once


@task(cache_policy=NO_CACHE, task_run_name="score")
def score(profile: Profile, step: Step, evidence: Evidence) -> Artifact:
    """`results.json`, `report.md` and `report.html`; `latest` of this experiment then points at them."""
    store = ArtifactStore(profile.store)

    def work(folder: Path) -> dict[str, Any]:
        results = evaluate_on_ray(profile, evidence, step)
        save_results(results, folder / "results.json")
        (folder / "report.md").write_text(markdown_report(results), encoding="utf-8")
        (folder / "report.html").write_text(html_report(results), encoding="utf-8")
        return {"untrained": results.untrained, "ensemble": results.variants[0].ensemble}

    known = store.find(step.artifact) is not None
    artifact = run_once(store, step, work)
    store.point(KIND, step.name, "latest", artifact)
    if not known:
        track(store, step)
    return artifact


def track(store: ArtifactStore, step: Step) -> None:
    """The experiment's own run of Weights & Biases, once a result."""
    account = find_account()
    results = load_results(store, step.artifact)
    run = TrackedRun(step.artifact, results.experiment, f"{results.experiment} results", "results", step.spec)
    inputs = [reference(store, made) for role, made in step.inputs.items() if role.startswith(("partition", "adapter"))]
    if warning := track_results(run, results, inputs, account):
        log().warning(warning)


def evaluate_on_ray(profile: Profile, evidence: Evidence, step: Step) -> Results:
    """The embedder runs where the cluster has room for it."""
    import ray

    connect(profile)
    need = profile.engines
    options = {"num_cpus": need.cpus, "num_gpus": need.gpus, "max_retries": 2, **without_gpu(need.gpus)}
    place = ray.remote(**options)(evaluate_in_worker)
    with unwrapped():
        results: Results = ray.get(place.remote(store_url(profile), evidence, step.name, step.spec["question"]))
    return results


def evaluate_in_worker(url: str, evidence: Evidence, experiment: str, question: str) -> Results:
    """The Ray task."""
    return evaluate(ArtifactStore(url), evidence, experiment, question)


@task(cache_policy=NO_CACHE, task_run_name="report")
def report(profile: Profile, artifact: Artifact) -> Results:
    """Show the result on the dashboard and in the log."""
    store = ArtifactStore(profile.store)
    results = load_results(store, artifact)
    rows = [
        {"variant": one_line(v.name), **{f"seed {m.seed}": round(m.score, 4) for m in v.members}, "mean": round(v.mean, 4),
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
        markdown_report(results),
        key=artifact_key(f"{results.experiment}-report"),
        description=markdown_text(results.question),
    )
    log().info("%s", verdict(results))
    log().info("report: %s", store.fetch(artifact) / "report.html")
    return results
