"""The deployments of prefect.yaml on a real server, run by a real worker, as `prefect deployment run` starts them."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from typing import Any

import pytest
from line_project import LineProject

from flows.local_server import running
from flows.local_settings import environment

pytestmark = pytest.mark.slow
TINY = {"recipe": "tiny-recipe.yaml", "profile": "tiny.yaml"}


def prefect(project: LineProject, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The `prefect` command on the project's server."""
    return subprocess.run(
        [sys.executable, "-m", "prefect", "--no-prompt", *arguments],
        cwd=project.folder, env=environment(project.folder, running(project.folder)),
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip


def ask(project: LineProject, path: str, **body: Any) -> Any:
    """An answer of the server's API."""
    server = running(project.folder)
    assert server is not None
    headers = {"Content-Type": "application/json", **server.authorization}
    request = urllib.request.Request(f"{server.api_url}/{path}", json.dumps(body).encode() if body else None, headers)
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30) as answer:
        return json.load(answer)


def run_deployment(project: LineProject, name: str, parameters: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """The exit code of `prefect deployment run --watch`, and the flow run that it made."""
    given = [text for key, value in parameters.items() for text in ("-p", f"{key}={json.dumps(value)}")]
    done = prefect(project, "deployment", "run", name, "--watch", *given)
    (newest,) = ask(project, "flow_runs/filter", sort="EXPECTED_START_TIME_DESC", limit=1,
                    flow_runs={"state": {"name": {"any_": ["Completed", "Failed"]}}})  # fmt: skip
    return done.returncode, newest


def test_the_quickstart_runs_as_a_deployment_and_shows_its_result(undisturbed: LineProject) -> None:
    code, run = run_deployment(undisturbed, "experiment/quickstart", TINY)
    assert (code, run["state_name"]) == (0, "Completed")
    names = {task["name"] for task in ask(undisturbed, "task_runs/filter", flow_runs={"id": {"any_": [run["id"]]}})}
    assert names == {"generate", "curate", "partition", "train default seed 0", "predict", "score", "report"}
    shown = ask(undisturbed, "artifacts/filter", artifacts={"flow_run_id": {"any_": [run["id"]]}})
    assert {"tiny-scores", "tiny-report"} <= {artifact["key"] for artifact in shown}
    (report,) = [artifact["data"] for artifact in shown if artifact["key"] == "tiny-report"]
    assert "Does anything come out at all?" in report


def test_a_mistake_fails_the_run_with_one_message(served: LineProject) -> None:
    code, run = run_deployment(served, "experiment/quickstart", TINY | {"overrides": ["training.epocs=2"]})
    assert (code, run["state_name"]) == (1, "Failed")
    lines = ask(served, "logs/filter", logs={"flow_run_id": {"any_": [run["id"]]}})
    said = "\n".join(line["message"] for line in lines)
    assert "did you mean 'epochs'?" in said
    assert "Traceback" not in said


def test_the_nightly_has_a_clock_with_a_time_zone(served: LineProject) -> None:
    nightly = ask(served, "deployments/name/regenerate/nightly")
    (schedule,) = [entry["schedule"] for entry in nightly["schedules"]]
    assert (schedule["cron"], schedule["timezone"]) == ("0 2 * * *", "UTC")
    assert nightly["parameters"] == {"recipe": "rewrites", "profile": "laptop"}
    waiting = ask(served, "flow_runs/filter", deployments={"id": {"any_": [nightly["id"]]}})
    assert all(run["state_name"] == "Scheduled" for run in waiting)


def test_the_nightly_runs_for_a_day(served: LineProject) -> None:
    code, run = run_deployment(served, "regenerate/nightly", TINY | {"day": "2026-11-17"})
    assert (code, run["state_name"]) == (0, "Completed")
    assert "2026-11-17" in served.store.refs("dataset", "tiny")
