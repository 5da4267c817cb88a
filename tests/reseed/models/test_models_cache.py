"""The model cache: whole folders or none, built once, and an error with its cure when a model cannot be had."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from reseed.files import cache_root
from reseed.models.cache import cached, dense_folder, materialise
from reseed.models.loading import load_model
from reseed.models.names import ModelSpec, Upcycle
from reseed.records import ReseedError

REPOSITORY = Path(__file__).resolve().parents[3]

BUILD = """
import sys, time
from pathlib import Path
from reseed.models.cache import cached

def build(scratch: Path) -> None:
    (scratch / "half").write_text("half of the weights")
    with open(sys.argv[1], "a") as log:
        log.write("built\\n")
    time.sleep(float(sys.argv[2]))
    (scratch / "rest").write_text("the other half")

print(cached("model-1.0", build))
"""


def start_build(cache: Path, log: Path, seconds: float) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", BUILD, str(log), str(seconds)],
        env=os.environ | {"RESEED_CACHE": str(cache)},
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        text=True,
    )


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 30
    while not path.exists():
        assert process.poll() is None, "the builder ended early"
        assert time.monotonic() < deadline, f"{path} did not come"
        time.sleep(0.02)


def whole(scratch: Path) -> None:
    (scratch / "model.safetensors").write_bytes(b"whole")


def test_a_cache_that_cannot_be_written_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/proc")  # where root may not write either
    for cache in ("/proc/cache", ""):
        monkeypatch.setenv("RESEED_CACHE", cache)
        with pytest.raises(ReseedError, match=r"cannot write in /proc/.*set RESEED_CACHE to a folder"):
            dense_folder("wheel:nothing==1.0")


def test_cache_root_is_where_the_environment_says(cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert cache_root() == cache
    assert cached("m", whole) == cache / "models" / "m"
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("RESEED_CACHE", "")
    assert cache_root() == tmp_path / "home" / ".cache" / "reseed"


def test_a_failed_build_leaves_nothing_and_the_next_call_builds(cache: Path) -> None:
    def broken(scratch: Path) -> None:
        whole(scratch)
        raise RuntimeError("the line went dead")

    with pytest.raises(RuntimeError, match="dead"):
        cached("m", broken)
    assert list((cache / "models").iterdir()) == []
    folder = cached("m", whole)
    assert (folder / "model.safetensors").read_bytes() == b"whole"
    assert cached("m", broken) == folder, "a folder that is there is not built again"


def test_the_folder_lists_its_files_with_their_digests(cache: Path) -> None:
    def nested(scratch: Path) -> None:
        whole(scratch)
        (scratch / "1_Pooling").mkdir()
        (scratch / "1_Pooling" / "config.json").write_text("{}")

    lines = (cached("m", nested) / "reseed-checksums.txt").read_text().splitlines()
    assert lines == [
        f"{hashlib.sha256(b'{}').hexdigest()}  1_Pooling/config.json",
        f"{hashlib.sha256(b'whole').hexdigest()}  model.safetensors",
    ]


def test_a_killed_build_leaves_no_model_and_the_next_call_builds_and_cleans(cache: Path, tmp_path: Path) -> None:
    first = start_build(cache, tmp_path / "log", 60)
    try:
        wait_for(tmp_path / "log", first)
    finally:
        first.send_signal(signal.SIGKILL)
        first.communicate()
    assert not (cache / "models" / "model-1.0").exists()
    neighbour = cache / "models" / ".model-1.0-mixtral-0123abcd-89abcdef"  # being built under another lock
    neighbour.mkdir()
    folder = cached("model-1.0", whole)
    assert {p.name for p in folder.iterdir()} == {"model.safetensors", "reseed-checksums.txt", "reseed-verified.json"}
    assert {p.name for p in folder.parent.iterdir()} == {"model-1.0", neighbour.name}


def test_two_processes_build_once(cache: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    both = [start_build(cache, log, 0.5) for _ in range(2)]
    told = {process.communicate(timeout=60)[0].strip() for process in both}
    assert [process.returncode for process in both] == [0, 0]
    assert told == {str(cache / "models" / "model-1.0")}
    assert log.read_text().splitlines() == ["built"]
    assert (cache / "models" / "model-1.0" / "rest").exists()


# --- folders and the hub -----------------------------------------------------------------------------------------------


def test_a_local_folder_is_used_where_it_is(cache: Path, tiny_model: Path) -> None:
    assert materialise(ModelSpec(name=str(tiny_model))) == tiny_model
    with pytest.raises(ReseedError, match="no such folder; mend the path"):
        materialise(ModelSpec(name="./there-is-no-such-folder"))


def test_an_upcycled_folder_follows_the_content_of_its_source(cache: Path, tiny_model: Path, tmp_path: Path) -> None:
    source = tmp_path / "dense"
    shutil.copytree(tiny_model, source)
    spec = ModelSpec(name=str(source), dtype="float32", upcycle=Upcycle(experts=2, top_k=1))
    first = materialise(spec)
    assert first.parent == cache / "models"
    assert materialise(spec) == first

    import torch

    model = load_model(source, ModelSpec(name=str(source), dtype="float32"))
    with torch.no_grad():
        model.lm_head.weight.add_(1.0)
    model.save_pretrained(source)
    second = materialise(spec)
    assert second != first, "trained on under the same path, the source is another model"
    changed = load_model(second, spec).lm_head.weight
    assert torch.equal(changed, model.lm_head.weight)


UNREACHABLE = """
from reseed.models.cache import dense_folder
from reseed.records import ReseedError
try:
    dense_folder("reseed-tests/no-such-model@main")
except ReseedError as error:
    print(error)
"""


def test_an_unreachable_hub_is_an_error_with_its_cure_within_seconds(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {key: value for key, value in os.environ.items() if key != "HF_HUB_OFFLINE"}
    environment |= {"HF_ENDPOINT": f"http://127.0.0.1:{port}", "HF_HOME": str(tmp_path), "NO_PROXY": "127.0.0.1"}
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", UNREACHABLE], env=environment, cwd=REPOSITORY, capture_output=True, text=True, timeout=60
    )
    assert time.monotonic() - started < 20
    assert done.stdout.startswith("model 'reseed-tests/no-such-model@main': not a folder, and the hub did not give it")
    assert "choose --profile laptop, which needs no hub" in done.stdout
    assert "Traceback" not in done.stderr


def test_a_model_that_does_not_load_is_an_error(tiny_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(ReseedError, match="cannot be loaded"):
        load_model(folder, ModelSpec(name=str(folder)))
