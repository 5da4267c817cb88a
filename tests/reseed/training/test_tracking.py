"""Weights & Biases: offline unless the user is logged in, one run for every member and one for the experiment."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from offline_runs import read_back
from plain_step import plain_step

from reseed.records import Artifact, LossPoint
from reseed.results import ComparisonResult, MemberResult, NoiseParts, Results, VariantResult
from reseed.store.artifacts import ArtifactStore
from reseed.training.tracking import Account, TrackedRun, Tracker, find_account, reference, track_results

REPOSITORY = Path(__file__).resolve().parents[3]

TWO_MEMBERS = """
import os
import sys
from pathlib import Path
from reseed.records import Artifact, LossPoint
from reseed.training.tracking import TrackedRun, Tracker

def begin(key, seed):
    adapter = Artifact("adapter", "tiny", key)
    run = TrackedRun(adapter, "group of members", f"default seed {seed}", "member", {"rank": 8, "seed": seed})
    return Tracker(run, Path(sys.argv[1]), "offline")

broken = begin("f" * 32, 9)
broken.point(LossPoint(7, train=9.0))  # this member fails, and nobody ends its run
for seed in (0, 1):
    key = f"{seed:032x}"[::-1]  # only the first sixteen digits name the run
    tracker = begin(key, seed)
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


def find_account_anew() -> Account:
    """wandb reads the environment and its files once a process."""
    import wandb

    wandb.teardown()
    return find_account()


KEY = "0123456789" * 4


def test_offline_for_someone_who_never_logged_in(nobody: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    account = find_account_anew()
    assert (account.mode, account.warning) == ("offline", None)
    assert account.folder == str(tmp_path), "where `wandb sync` looks"


def test_online_with_a_key_in_the_environment(nobody: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_ENTITY", "a team")
    monkeypatch.setenv("WANDB_SERVICE", "3-1-unix-/tmp/gone/socket")  # of a run of this process
    account = find_account()
    assert account.mode == "online"
    assert account.variables["WANDB_ENTITY"] == "a team", "what is set reaches other nodes"
    assert "WANDB_SERVICE" not in account.variables, "but for places of this machine"
    assert KEY not in repr(account)


@pytest.mark.parametrize("server", ["https://wandb.example.org", "http://127.0.0.1:8080"])
def test_a_key_of_netrc_is_found_by_its_host_and_reaches_other_nodes(
    nobody: Path, monkeypatch: pytest.MonkeyPatch, server: str
) -> None:
    (nobody / ".netrc").write_text(f"machine {server.split('/')[-1]}\n  login user\n  password {KEY}\n")
    (nobody / ".netrc").chmod(0o600)
    assert find_account_anew().mode == "offline", "the key is of another server than wandb's own"
    monkeypatch.setenv("WANDB_BASE_URL", server)
    account = find_account_anew()
    assert account.mode == "online"
    assert (account.variables["WANDB_API_KEY"], account.variables["WANDB_BASE_URL"]) == (KEY, server)


@pytest.mark.parametrize("content", ["machine example.org\n  login me\n  password secret\n", "this is no netrc file {"])
def test_offline_with_a_netrc_that_says_nothing_of_it(nobody: Path, content: str) -> None:
    (nobody / ".netrc").write_text(content)
    (nobody / ".netrc").chmod(0o600)
    assert find_account_anew().mode == "offline"


def test_a_key_that_is_none_is_reported_and_costs_no_member(nobody: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "too-short")
    account = find_account_anew()
    assert account.mode == "offline"
    assert account.warning is not None
    assert "WANDB_API_KEY invalid" in account.warning
    assert "too-short" not in account.warning


@pytest.mark.parametrize("mode", ["disabled", "offline", "online"])
def test_the_mode_that_is_set_wins(nobody: Path, monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_MODE", mode)
    assert find_account_anew().mode == mode


def test_a_server_that_is_not_there_costs_no_member(
    nobody: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_INIT_TIMEOUT", "2")
    account = find_account_anew()
    tracker = Tracker(member(0), tmp_path, account.mode)
    tracker.finish({})
    assert tracker.warning is not None
    assert f"the run is kept offline in {tmp_path}/wandb" in tracker.warning
    assert set(read_back(tmp_path)) == {"0" * 16}


@pytest.mark.parametrize("process", [1, os.getpid()], ids=["another process", "a service that ended"])
def test_a_service_that_is_gone_is_not_used(
    nobody: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, process: int
) -> None:
    monkeypatch.setenv("WANDB_SERVICE", f"3-{process}-unix-{tmp_path}/gone/socket")
    assert find_account_anew().mode == "offline"
    monkeypatch.setenv("WANDB_SERVICE", f"3-{process}-unix-{tmp_path}/gone/socket")
    tracker = Tracker(member(0), tmp_path, "offline")
    tracker.finish({})
    assert tracker.warning is None
    assert set(read_back(tmp_path)) == {"0" * 16}


def member(seed: int, key: str = "0" * 32) -> TrackedRun:
    artifact = Artifact("adapter", "tiny-default", key)
    return TrackedRun(artifact, "tiny", f"tiny default seed {seed}", "member", {"seed": seed})


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
    assert broken.config == {"rank": 8, "seed": 9, "artifact": f"adapter/tiny/{'f' * 32}"}
    assert [(item["_step"], item["train/loss"]) for item in broken.history] == [(7, 9)]
    for seed, (run,) in enumerate(runs.values()):
        assert (run.name, run.project, run.ended) == (f"default seed {seed}", "reseed", True)
        assert (run.group, run.job_type) == ("group of members", "member")
        assert run.config["seed"] == seed
        assert (run.summary["best_step"], run.summary["best_loss"]) == (3 + seed, 0.5 + seed)
        steps = [1, 2, 3 + seed]
        assert [item["_step"] for item in run.history] == steps
        assert [item["train/loss"] for item in run.history] == [10 * (seed + 1) - step for step in steps]
        assert [item.get("validation/loss") for item in run.history] == [None, None, 0.5 + seed]


def test_a_member_that_fails_ends_its_run(nobody: Path, tmp_path: Path) -> None:
    tracker = Tracker(member(0), tmp_path, "offline")
    tracker.point(LossPoint(1, train=1.0))
    tracker.abandon()
    ((run,),) = read_back(tmp_path).values()
    assert run.ended
    assert [item["_step"] for item in run.history] == [1]


def test_a_member_that_continues_writes_into_the_run_it_began(nobody: Path, tmp_path: Path) -> None:
    for steps in ((1, 2), (3, 4)):
        tracker = Tracker(member(0, "abcdef0123456789" * 2), tmp_path, "offline")
        for step in steps:
            tracker.point(LossPoint(step, train=1 / step))
        tracker.finish({"best_step": steps[-1]})
        time.sleep(1.1)  # an offline run's folder is named by id and second; a member never continues so soon
    runs = read_back(tmp_path)
    assert set(runs) == {"abcdef0123456789"}
    assert [[item["_step"] for item in part.history] for part in runs["abcdef0123456789"]] == [[1, 2], [3, 4]]


def test_an_offline_run_of_another_node_lands_where_it_is_looked_for(nobody: Path, tmp_path: Path) -> None:
    tracker = Tracker(member(0), tmp_path / "far", "offline")
    tracker.point(LossPoint(1, train=1.0))
    tracker.finish({"best_step": 1})
    run = tracker.packed()
    assert run is not None
    run.unpack(tmp_path / "home")
    assert read_back(tmp_path / "home") == read_back(tmp_path / "far")
    said = subprocess.run(
        [Path(sys.executable).parent / "wandb", "sync", "--dry-run"], cwd=tmp_path / "home", capture_output=True,
        text=True, timeout=60, check=True,
    ).stderr  # fmt: skip
    assert "Would sync 1 run" in said


def test_stored_artifacts_are_listed_by_reference(nobody: Path, tmp_path: Path, store: ArtifactStore) -> None:
    (tmp_path / "files" / "adapter").mkdir(parents=True)
    (tmp_path / "files" / "adapter" / "adapter_model.safetensors").write_bytes(b"weights")
    made = store.write(plain_step("train", 1, "adapter", "tiny-default", {}, seed=0), tmp_path / "files")
    tracker = Tracker(TrackedRun(made, "tiny", "tiny default seed 0", "member", {}), tmp_path / "runs", "offline")
    tracker.write(reference(store, made))
    tracker.finish({})
    ((run,),) = read_back(tmp_path / "runs").values()
    listed = run.artifacts["model"]
    assert (listed["name"], made.key[:12] in listed["aliases"]) == ("adapter-tiny-default", True)
    (entry,) = listed["manifest"]["contents"]
    place = f"{store.manifest(made).place}/adapter/adapter_model.safetensors"
    assert entry["ref"].startswith(("file:///", "s3://"))
    assert entry["ref"].endswith(place)
    assert (entry["path"], entry["size"]) == ("adapter/adapter_model.safetensors", "7")


def test_the_experiment_has_a_run_with_mean_spread_and_every_member(nobody: Path, tmp_path: Path) -> None:
    seeds = tuple(MemberResult(seed, 0.25 + seed / 2, best_step=9, artifact=f"adapter/tiny/{seed}") for seed in (0, 1))
    variant = VariantResult("default", seeds, mean=0.5, std=0.35, ensemble=0.6)
    found = ComparisonResult(
        "default",
        "untrained",
        "recipe",
        0.5,
        0.3,
        0.7,
        0.95,
        0.01,
        0.02,
        "better",
        (2, 0),
        9,
        9.0,
        NoiseParts(0.1, 0.1, 0.0),
        decided_at=3,
    )
    results = Results(
        experiment="tiny", question="Does it?", problem="p", metric="SCS", higher_is_better=True, rows=12, untrained=0.1,
        variants=(variant,), comparisons=(found,),
    )  # fmt: skip
    run = TrackedRun(Artifact("results", "tiny", "e" * 32), "tiny", "tiny results", "results", {"question": "Does it?"})
    assert track_results(run, results, [], Account({"WANDB_MODE": "offline"}, str(tmp_path))) is None
    ((found,),) = read_back(tmp_path).values()
    assert (found.group, found.job_type, found.ended) == ("tiny", "results", True)
    wanted = {
        "default/mean": 0.5,
        "default/std": 0.35,
        "default/ensemble": 0.6,
        "untrained": 0.1,
        "default − untrained/verdict": "better",
        "default − untrained/decided_at": 3,
    }
    assert wanted.items() <= found.summary.items()
    table = next((tmp_path / "wandb").glob("offline-run-*/files/media/table/*.json"))
    assert '"default",1,0.75,9,"adapter/tiny/1"' in table.read_text()
