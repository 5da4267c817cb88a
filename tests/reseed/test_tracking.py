"""Weights & Biases: offline unless the user is logged in, and one run for every member."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from reseed.records import LossPoint
from reseed.tracking import Tracker, wandb_mode

REPOSITORY = Path(__file__).resolve().parents[2]

TWO_MEMBERS = """
import os
import sys
from pathlib import Path
from reseed.records import LossPoint
from reseed.tracking import Tracker

folder = Path(sys.argv[1])
broken = Tracker("f" * 32, "group of members", "default seed 9", {"rank": 8, "seed": 9}, folder)
broken.point(LossPoint(7, train=9.0))  # this member fails, and nobody ends its run
for seed in (0, 1):
    key = f"{seed:032x}"[::-1]  # only the first sixteen digits name the run
    tracker = Tracker(key, "group of members", f"default seed {seed}", {"rank": 8, "seed": seed}, folder)
    for step in (1, 2, 3 + seed):
        tracker.point(LossPoint(step, train=10 * (seed + 1) - step))
    tracker.point(LossPoint(3 + seed, validation=0.5 + seed))
    tracker.finish({"best_step": 3 + seed, "best_loss": 0.5 + seed})
print(tracker.run.settings.mode, *[name for name in os.listdir(os.environ["TMPDIR"]) if name.startswith("wandb-")])
"""


@pytest.fixture
def nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user who never logged in."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    for name in [name for name in os.environ if name.startswith("WANDB_")] + ["NETRC"]:
        monkeypatch.delenv(name, raising=False)
    return home


def test_offline_for_someone_who_never_logged_in(nobody: Path) -> None:
    assert wandb_mode() == "offline"


def test_online_with_a_key_in_the_environment(nobody: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    assert wandb_mode() == "online"


def test_online_after_wandb_login(nobody: Path) -> None:
    (nobody / ".netrc").write_text("machine api.wandb.ai\n  login user\n  password " + "0" * 40 + "\n")
    (nobody / ".netrc").chmod(0o600)
    assert wandb_mode() == "online"


@pytest.mark.parametrize("content", ["machine example.org\n  login me\n  password secret\n", "this is no netrc file {"])
def test_offline_with_a_netrc_that_says_nothing_of_it(nobody: Path, content: str) -> None:
    (nobody / ".netrc").write_text(content)
    (nobody / ".netrc").chmod(0o600)
    assert wandb_mode() == "offline"


@pytest.mark.parametrize("mode", ["disabled", "offline", "online"])
def test_the_mode_that_is_set_wins(nobody: Path, monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_MODE", mode)
    assert wandb_mode() == mode


@dataclass
class Run:
    """One part of a run, as wandb itself reads it back."""

    config: dict[str, Any]
    name: str
    project: str
    summary: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    ended: bool = False


def read_back(folder: Path) -> dict[str, list[Run]]:
    """The offline runs in `folder`: run id → its parts."""
    found: dict[str, list[Run]] = {}
    for place in sorted((folder / "wandb").glob("offline-run-*")):
        command = [str(Path(sys.executable).parent / "wandb"), "leet", "inspect", "--json", str(place)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
        records = [json.loads(line) for line in done.stdout.splitlines()]
        begun = next(record["run"] for record in records if record["type"] == "run")
        config = {key: value for key, value in begun["config"]["update"].items() if not key.startswith("_")}
        run = Run(config, begun["display_name"], begun["project"])
        for record in records:
            if record["type"] == "summary":
                run.summary.update(record["summary"].get("update", {}))
            elif record["type"] == "history":
                run.history.append(record["history"]["item"])
        run.ended = records[-1]["type"] == "exit"
        found.setdefault(begun["run_id"], []).append(run)
    return found


def test_two_members_in_one_process_are_two_runs_with_their_own_steps(nobody: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", TWO_MEMBERS, str(tmp_path / "runs")]
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    variables = os.environ | {"TMPDIR": str(temporary)}
    done = subprocess.run(command, cwd=REPOSITORY, env=variables, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip() == "offline", "and no folder of a service's socket, which is killed with a Ray worker"
    runs = read_back(tmp_path / "runs")
    assert set(runs) == {"0" * 16, "1" + "0" * 15, "f" * 16}
    (broken,) = runs.pop("f" * 16)
    assert broken.config == {"rank": 8, "seed": 9}
    assert [(item["_step"], item["train/loss"]) for item in broken.history] == [(7, 9)]
    for seed, (run,) in enumerate(runs.values()):
        assert (run.name, run.project, run.ended) == (f"default seed {seed}", "reseed", True)
        assert run.config == {"rank": 8, "seed": seed}
        assert (run.summary["best_step"], run.summary["best_loss"]) == (3 + seed, 0.5 + seed)
        steps = [1, 2, 3 + seed]
        assert [item["_step"] for item in run.history] == steps
        assert [item["train/loss"] for item in run.history] == [10 * (seed + 1) - step for step in steps]
        assert [item.get("validation/loss") for item in run.history] == [None, None, 0.5 + seed]


def test_a_member_that_fails_ends_its_run(nobody: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    tracker = Tracker("fedcba9876543210" * 2, "group", "default seed 0", {"seed": 0}, tmp_path)
    tracker.point(LossPoint(1, train=1.0))
    tracker.abandon()
    ((run,),) = read_back(tmp_path).values()
    assert run.ended
    assert [item["_step"] for item in run.history] == [1]


def test_a_member_that_goes_on_writes_into_the_run_it_began(
    nobody: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    for steps in ((1, 2), (3, 4)):
        tracker = Tracker("abcdef0123456789" * 2, "group", "default seed 0", {"seed": 0}, tmp_path)
        for step in steps:
            tracker.point(LossPoint(step, train=1 / step))
        tracker.finish({"best_step": steps[-1]})
        time.sleep(1.1)  # an offline run's folder is named by id and second; a member never goes on so soon
    runs = read_back(tmp_path)
    assert set(runs) == {"abcdef0123456789"}
    assert [[item["_step"] for item in part.history] for part in runs["abcdef0123456789"]] == [[1, 2], [3, 4]]
