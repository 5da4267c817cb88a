"""One member on two Ray nodes, a training worker on each: every rank's part in the checkpoint, the adapter in the store.

Both nodes are on this machine, under addresses of their own. Each has one CPU, so that no node can take both workers.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest
from tiny import save_profile, save_recipe

from reseed.store.artifacts import ArtifactStore
from tasks.train import KEPT

pytestmark = pytest.mark.slow
REPOSITORY = Path(__file__).resolve().parents[2]
RAY = Path(sys.executable).parent / "ray"
MARK = "RESEED_TEST_CLUSTER"  # in the environment of every process that is started here
PATIENCE = 240


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def marked_processes(mark: str, name: str = "") -> Iterator[psutil.Process]:
    """The processes of this test whose command line holds `name`."""
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get(MARK) == mark and name in " ".join(process.cmdline()):
                yield process


def wait_for(ready: Callable[[], object], seconds: float = PATIENCE) -> None:
    end = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.2)


def status(address: str, environment: dict[str, str]) -> str:
    """What the cluster says of itself; empty while it does not answer. A raylet that runs need not have joined yet."""
    command = [str(RAY), "status", f"--address={address}"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False).stdout


@contextmanager
def two_nodes(base: dict[str, str], place: Path) -> Iterator[dict[str, str]]:
    """The environment of a driver of two Ray nodes, which live as long as the block.

    Each has its own folders, as on two machines: what one rank of a node makes, no other node sees.
    """
    address = f"127.0.0.2:{free_port()}"
    common = ["--num-cpus=1", "--disable-usage-stats", "--dashboard-agent-listen-port=0", "--block"]
    head = ["--head", f"--port={address.split(':')[1]}", "--include-dashboard=false", "--node-ip-address=127.0.0.2"]
    head += [f"--ray-client-server-port={free_port()}", f"--temp-dir={place / 'ray'}"]
    started = []
    try:
        for number, own in enumerate((head, [f"--address={address}", "--node-ip-address=127.0.0.3"])):
            (place / f"node-{number}").mkdir()
            own_place = {"TMPDIR": str(place / f"node-{number}"), "RESEED_CACHE": str(place / f"cache-{number}")}
            environment = base | own_place
            with (place / f"node-{number}.txt").open("w") as log:
                command = [str(RAY), "start", *own, *common]
                started.append(subprocess.Popen(command, env=environment, cwd=place, stdout=log, stderr=log))
            wait_for(lambda: f"/{len(started)}.0 CPU" in status(address, base), 60)
        yield base | {"RAY_ADDRESS": address}
    finally:
        for process in started:
            process.send_signal(signal.SIGTERM)
        for process in marked_processes(base[MARK]):
            with suppress(psutil.Error):
                process.kill()
        for process in started:
            process.wait()


def test_a_worker_on_each_of_two_nodes(tmp_path: Path) -> None:
    (tmp_path / "embedder").mkdir()  # nothing is scored here
    profile = save_profile(tmp_path, str(tmp_path / "store"), workers=2)
    settings = {"epochs": 1, "learning_rate": 0.01, "batch_size": 4, "evaluate_every": 2, "max_tokens": 320}
    recipe = save_recipe(tmp_path, training=settings | {"zero_stage": 2})
    place = Path(tempfile.mkdtemp(prefix="rs"))  # the path of Ray's sockets must be short
    base = os.environ | {
        MARK: secrets.token_hex(8), "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "PYTHONPATH": os.pathsep.join(map(str, (REPOSITORY, REPOSITORY / "tests"))), "WANDB_MODE": "offline",
        "RESEED_CACHE": str(tmp_path / "cache"), "GLOO_SOCKET_IFNAME": "lo",
    }  # fmt: skip
    homes = set()
    try:
        with two_nodes(base, place) as environment:
            command = [sys.executable, str(Path(__file__).with_name("member_on_cluster.py")), str(profile), str(recipe)]
            with (tmp_path / "said.txt").open("w") as log:
                member = subprocess.Popen(command, env=environment, cwd=tmp_path, stdout=log, stderr=subprocess.STDOUT)
            end = time.monotonic() + PATIENCE
            while member.poll() is None and time.monotonic() < end:
                with suppress(psutil.Error):  # of a worker that just ends
                    homes |= {
                        worker.environ()["TMPDIR"] for worker in marked_processes(base[MARK], "ray::RayTrainWorker")
                    }
                time.sleep(0.2)
            member.kill()
            assert member.wait() == 0, (tmp_path / "said.txt").read_text()[-6000:]
        wait_for(lambda: not list(marked_processes(base[MARK])), 30)
    finally:
        shutil.rmtree(place, ignore_errors=True)
    assert len(homes) == 2, "a worker on each node"
    assert len(list((tmp_path / "wandb").glob("offline-run-*/run-*.wandb"))) == 1, "wherever rank 0 was"
    *_, kept, adapter = (tmp_path / "said.txt").read_text().splitlines()
    checkpoints = json.loads(kept)
    assert len(checkpoints) == KEPT, "of five"
    both = [f"zero_pp_rank_{rank}_mp_rank_00_optim_states.pt" for rank in (0, 1)]
    for files in checkpoints.values():
        assert [name for name in files if name.endswith("_optim_states.pt")] == both, "every rank's part"
        assert {"origin.json", "best.json", "adapter_model.safetensors"} <= set(files)
    kind, name, key = adapter.split("/")
    store = ArtifactStore(str(tmp_path / "store"))
    (manifest,) = store.list(kind, name)
    assert (manifest.kind, manifest.key, manifest.spec["workers"]) == ("adapter", key, 2)
    assert manifest.metrics["steps"] == 10
    assert manifest.metrics["logit_shift"] > 0
    assert {file.path for file in manifest.files} == {
        "adapter/adapter_config.json",
        "adapter/adapter_model.safetensors",
        "curve.jsonl",
    }
    assert not list((tmp_path / "store" / "scratch" / "train").glob("*")), json.dumps(manifest.metrics)
