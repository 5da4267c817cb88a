"""Predict: the untrained student and every member answer the held-out rows, through one pool of engines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from reseed.files import read_jsonl, write_jsonl
from reseed.line import predict_step, student
from reseed.problems import load_problem
from reseed.profile import Profile
from reseed.recipe import Recipe
from reseed.records import Artifact, Generation, Sampling
from reseed.steps import Step
from reseed.store import ArtifactStore
from reseed.training.prompts import prompt_format
from tasks.placement import Job, engine_pool
from tasks.progress import progress
from tasks.run_once import log, run_once


@dataclass(frozen=True)
class Question:
    """One set of predictions to be made: with an adapter, or with none."""

    recipe: Recipe  # the variant's
    partition: Artifact
    adapter: Artifact | None


@task(cache_policy=NO_CACHE, task_run_name="predict")
def predict(profile: Profile, questions: Sequence[Question]) -> list[Artifact]:
    """One artifact a question, in their order: `predictions.jsonl` with row id, text, answer and how it ended."""
    store = ArtifactStore(profile.store)
    steps = [predict_step(q.recipe, profile, q.partition, q.adapter) for q in questions]
    missing: dict[str, tuple[Question, Step]] = {}  # by key: variants that agree share their answers
    for question, step in zip(questions, steps, strict=True):
        if store.find(step.artifact) is None:
            missing[step.artifact.key] = (question, step)
        else:
            log().info("%s: in the store", step.artifact)
    for model in dict.fromkeys(student(q.recipe, profile) for q, _ in missing.values()):
        own = [(q, s) for q, s in missing.values() if student(q.recipe, profile) == model]
        jobs = [job for q, s in own for job in jobs_of(store, profile, q, s)]
        answers: dict[str, list[Generation]] = {s.artifact.key: [] for _, s in own}
        open_jobs = {s.artifact.key: sum(job.id.startswith(s.artifact.key) for job in jobs) for _, s in own}
        with (
            engine_pool(profile, model, len(jobs)) as pool,
            progress("predict: rows", sum(len(j.rows) for j in jobs)) as shown,
        ):
            for job, given in pool.run(jobs):
                key = job.id.partition("/")[0]
                answers[key] += given
                open_jobs[key] -= 1
                shown.advance(len(given))
                if open_jobs[key] == 0:
                    commit(store, *missing[key], answers[key])
    return [step.artifact for step in steps]


def jobs_of(store: ArtifactStore, profile: Profile, question: Question, step: Step) -> list[Job]:
    """The held-out rows in one job for each actor, rows of like length together."""
    rows = read_jsonl(store.fetch(question.partition) / "test.jsonl")
    problem = load_problem(question.recipe.problem)
    rows.sort(key=lambda row: (len(problem.prompt(row)), row["id"]))
    size = profile.engines.batch_size
    sampling = Sampling(question.recipe.prediction.max_new_tokens)
    return [
        Job(
            id=f"{step.artifact.key}/{start}",
            prompts=(),
            sampling=sampling,
            seed=0,
            rows=tuple(rows[start : start + size]),
            problem=question.recipe.problem,
            max_tokens=question.recipe.training.max_tokens,
            style=prompt_format(question.recipe.training),
            adapter=question.adapter,
        )
        for start in range(0, len(rows), size)
    ]


def commit(store: ArtifactStore, question: Question, step: Step, answers: Sequence[Generation]) -> None:
    """Write one set of predictions, sorted by row id."""
    problem = load_problem(question.recipe.problem)
    stopped = sum(answer.finish == "stop" for answer in answers)

    def work(folder: Path) -> dict[str, Any]:
        rows = [
            {**asdict(answer), "answer": problem.parse(answer.text)} for answer in sorted(answers, key=lambda a: a.id)
        ]
        write_jsonl(folder / "predictions.jsonl", rows)
        return {"rows": len(rows), "ended_by_themselves": stopped}

    run_once(store, step, work)
    log().info("predict: %d of %d answers ended by themselves", stopped, len(answers))
