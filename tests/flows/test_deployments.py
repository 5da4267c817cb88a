"""The deployments of prefect.yaml on a real server, run by a real worker, as `prefect deployment run` starts them."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from line_project import LineProject, eventually, server_of
from pictures_in import pictures_in, texts
from plain_step import plain_step

from infra.local.api import ask as ask_server
from infra.local.settings import environment

pytestmark = pytest.mark.slow
TINY = {"recipe": "tiny-recipe.yaml", "profile": "tiny.yaml"}


def prefect(project: LineProject, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The `prefect` command on the project's server."""
    return subprocess.run(
        [sys.executable, "-m", "prefect", "--no-prompt", *arguments],
        cwd=project.folder, env=environment(project.folder, server_of(project)),
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip


def ask(project: LineProject, path: str, **body: Any) -> Any:
    """An answer of the server's API."""
    return ask_server(server_of(project), f"/{path}", body or None)


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
    wanted = {"generate", "curate", "partition", "train default seed 0", "predict", "blend", "score", "report"}
    eventually(
        lambda: task_names(undisturbed, run["id"]) == wanted
    )  # the server writes what tasks tell it a little later
    shown = ask(undisturbed, "artifacts/filter", artifacts={"flow_run_id": {"any_": [run["id"]]}})
    assert {"tiny-scores", "tiny-report"} <= {artifact["key"] for artifact in shown}
    (report,) = [artifact["data"] for artifact in shown if artifact["key"] == "tiny-report"]
    assert "Does anything come out at all?" in report
    check_pictures(report)


def check_pictures(report: str) -> None:
    """The artifact's pictures are those of the stored page, whose text has none."""
    shown = {title: texts(svg) for title, svg in pictures_in(report).items()}
    titles = ["Scores", "Differences with their intervals", "Where the noise comes from"]
    assert list(shown) == [*titles, "What more seeds or prompts would see", "Loss curves"]
    assert {"default", "untrained", "one seed"} <= set(shown["Scores"])
    assert {"default − untrained", "default − best constant"} <= set(shown["Differences with their intervals"])
    assert {"train", "validation", "step", "loss"} <= set(shown["Loss curves"])
    assert len(report.encode()) < 300_000


def task_names(project: LineProject, run: str) -> set[str]:
    """What the dashboard calls the tasks of a flow run."""
    return {task["name"] for task in ask(project, "task_runs/filter", flow_runs={"id": {"any_": [run]}})}


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
    assert {run["state_name"] for run in waiting} == {"Scheduled"}
    unwatched = nightly["parameters"] | {"missed": "every", "hours": 12}
    assert all(run["parameters"] == unwatched for run in waiting), "runs that the clock starts"
    assert {run["created_by"]["id"] for run in waiting} == {entry["id"] for entry in nightly["schedules"]}


def test_every_missed_night_is_made_in_its_order_once_a_stopped_run_is_out_of_the_way(
    served: LineProject, tmp_path: Path
) -> None:
    """One is due on the 2nd and one on the 4th, when the server slept on the 3rd; before them a run stands still. Which of
    the two is first is Prefect's choice."""
    first = served.store.write(plain_step("publish", 1, "dataset", "nights", {"date": "2026-10-01"}), tmp_path)
    served.store.point("dataset", "nights", "2026-10-01", first)
    stopped = start_nightly(served, day="2026-09-29", hours=10 / 3600)
    process = eventually_found(lambda: flow_process(stopped))
    eventually(lambda: any("leftovers.py" in " ".join(child.cmdline()) for child in process.children()))
    time.sleep(2)  # the watcher is told the limit right after its start
    process.suspend()
    late = [start_nightly(served, due=f"2026-10-{day}T02:00:00Z", missed="every") for day in ("02", "04")]
    eventually(lambda: states(served, *late) == ["Completed"] * 2, every=1)
    assert states(served, stopped) == ["Crashed"]
    assert not flow_process(stopped)
    versions = {ref: artifact.path for ref, artifact in served.store.refs("dataset", "nights").items()}
    assert sorted(versions) == ["2026-10-01", "2026-10-02", "2026-10-03", "2026-10-04", "latest"]
    assert versions["latest"] == versions["2026-10-04"]
    made = [manifest.spec["date"] for manifest in served.store.list("dataset", "nights")]  # oldest first
    assert made == ["2026-10-01", "2026-10-02", "2026-10-03", "2026-10-04"]


def test_a_day_that_is_no_date_fails_the_nightly_with_one_message(served: LineProject) -> None:
    code, run = run_deployment(served, "regenerate/nightly", TINY | {"day": "2026-11-31"})
    assert (code, run["state_name"]) == (1, "Failed")
    lines = ask(served, "logs/filter", logs={"flow_run_id": {"any_": [run["id"]]}})
    said = [line["message"] for line in lines]
    assert "day '2026-11-31': no such date; wanted year-month-day, as in day=2026-11-20" in said
    assert "Traceback" not in "\n".join(said)


def start_nightly(project: LineProject, due: str | None = None, **parameters: Any) -> str:
    """A run of the deployment that was due then, of a dataset of its own; its id."""
    nightly = ask(project, "deployments/name/regenerate/nightly")
    state = {"type": "SCHEDULED", "state_details": {"scheduled_time": due}}
    given = TINY | {"overrides": ["name=nights"]} | parameters
    made = ask(project, f"deployments/{nightly['id']}/create_flow_run", parameters=given, state=state)
    return str(made["id"])


def flow_process(run: str) -> psutil.Process | None:
    """The process of a flow run."""
    for process in psutil.process_iter(["environ", "cmdline"]):
        own = (process.info["environ"] or {}).get("PREFECT__FLOW_RUN_ID") == run
        if own and "prefect.engine" in (process.info["cmdline"] or []):
            return process
    return None


def eventually_found(find: Callable[[], psutil.Process | None]) -> psutil.Process:
    """Wait for a process."""
    found: list[psutil.Process] = []
    eventually(lambda: found.extend(filter(None, [find()])) or found)
    return found[0]


def states(project: LineProject, *runs: str) -> list[str]:
    """The names of the runs' states."""
    return [ask(project, f"flow_runs/{run}")["state_name"] for run in runs]
