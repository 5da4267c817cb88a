"""Offline runs of Weights & Biases, as wandb itself reads them back."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Run:
    """One part of a run: a member that continues writes another part."""

    config: dict[str, Any]
    name: str
    project: str
    group: str
    job_type: str
    summary: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    artifacts: dict[str, dict[str, Any]] = field(default_factory=dict)  # type → the artifact's record
    measured: set[str] = field(default_factory=set)  # what was measured of the machine
    ended: bool = False


def read_back(folder: Path) -> dict[str, list[Run]]:
    """The offline runs that `wandb sync` finds in `folder`: run id → its parts."""
    found: dict[str, list[Run]] = {}
    for place in sorted((folder / "wandb").glob("offline-run-*")):
        command = [str(Path(sys.executable).parent / "wandb"), "leet", "inspect", "--json", str(place)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
        records = [json.loads(line) for line in done.stdout.splitlines()]
        begun = next(record["run"] for record in records if record["type"] == "run")
        found.setdefault(begun["run_id"], []).append(read_run(begun, records))
    return found


def read_run(begun: dict[str, Any], records: list[dict[str, Any]]) -> Run:
    config = {key: value for key, value in begun["config"]["update"].items() if not key.startswith("_")}
    run = Run(config, begun["display_name"], begun["project"], begun["run_group"], begun["job_type"])
    for record in records:
        match record["type"]:
            case "summary":
                run.summary.update(record["summary"].get("update", {}))
            case "history":
                run.history.append(record["history"]["item"])
            case "artifact":
                run.artifacts[record["artifact"]["type"]] = record["artifact"]
            case "stats":
                run.measured |= set(record["stats"]["item"])
    run.ended = records[-1]["type"] == "exit"
    return run
