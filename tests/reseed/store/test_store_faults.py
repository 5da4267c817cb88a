"""What a store on S3 does when its server is silent, slow, busy, or breaks off."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from s3_server import Fault, faulty_proxy, forget_clients
from stored_files import folder_with, step
from test_store import SOON, assert_one_attempt, message_of, through

from reseed.records import Artifact
from reseed.store.artifacts import ArtifactStore

LARGE = {"weights.safetensors": os.urandom(1 << 20) * 8}
VERBS: dict[str, tuple[str, Callable[[ArtifactStore, Path], object]]] = {
    "read": ("GET", lambda store, _: store.find(Artifact("adapter", "one", "abc"))),
    "list": ("GET", lambda store, _: store.list("adapter")),
    "write": ("PUT", lambda store, folder: store.write(step("new"), folder)),
}


@pytest.mark.parametrize("verb", VERBS)
def test_a_silent_server_is_one_message(s3_store: ArtifactStore, tmp_path: Path, verb: str) -> None:
    folder = folder_with(tmp_path / "work", {"rows.jsonl": b"{}"})
    method, act = VERBS[verb]
    fault = Fault("silent", method)
    with faulty_proxy(os.environ["AWS_ENDPOINT_URL"], fault) as proxy, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", proxy.address)
        forget_clients()
        try:
            begun = time.monotonic()
            message = message_of(lambda: act(ArtifactStore(s3_store.url, SOON), folder))
            took = time.monotonic() - begun
        finally:
            forget_clients()
    assert f"{proxy.address} was asked" in message
    assert "there was no answer" in message
    assert took < SOON.total + 5, "and what it did besides: s3fs and botocore together took an hour"
    assert 1000 - fault.times <= 3, "one layer tries again, not three"


@pytest.mark.parametrize("verb", ["read", "write"])
def test_a_busy_server_is_not_blamed_on_the_keys(s3_store: ArtifactStore, tmp_path: Path, verb: str) -> None:
    folder = folder_with(tmp_path / "work", {"rows.jsonl": b"{}"})
    method, act = VERBS[verb]
    message = message_of(lambda: through(Fault("busy", method), s3_store, lambda store: act(store, folder), SOON))
    assert "it answered SlowDown (503) every time" in message
    assert "overloaded or out of order, and the keys are not the reason" in message
    assert "AWS_" not in message


@pytest.mark.parametrize(
    "fault",
    [
        Fault("busy", times=3),
        Fault("silent", "PUT", times=1),
        Fault("cut", "PUT", ".safetensors", times=1, bytes=1_000_000),
        Fault("stuck", "PUT", ".safetensors", times=1, bytes=100_000),
    ],
    ids=lambda fault: fault.how,
)
def test_a_fault_that_passes_is_not_noticed_by_a_writer(s3_store: ArtifactStore, tmp_path: Path, fault: Fault) -> None:
    folder = folder_with(tmp_path / "work", LARGE)
    artifact = through(fault, s3_store, lambda store: store.write(step(), folder))
    assert_one_attempt(s3_store, artifact)
    assert fault.times == 0


@pytest.mark.parametrize(
    "fault",
    [
        Fault("cut answer", "GET", ".safetensors", times=1, bytes=1_000_000),
        Fault("cut answer", "GET", "manifest.json", times=1, bytes=600),
        Fault("slow", "GET", ".safetensors", times=1, bytes=1 << 14, pause=0.01),  # longer in all than silence may last
    ],
    ids=["cut file", "cut manifest", "slow"],
)
def test_a_fault_that_passes_is_not_noticed_by_a_reader(s3_store: ArtifactStore, tmp_path: Path, fault: Fault) -> None:
    artifact = s3_store.write(step(), folder_with(tmp_path / "work", LARGE))
    folder = through(fault, s3_store, lambda store: store.fetch(artifact))
    assert (folder / "weights.safetensors").read_bytes() == LARGE["weights.safetensors"]
    assert fault.times == 0


def test_a_server_that_stops_in_the_middle_of_a_put_is_one_message(s3_store: ArtifactStore, tmp_path: Path) -> None:
    folder = folder_with(tmp_path / "work", LARGE)
    begun = time.monotonic()
    fault = Fault("stuck", "PUT", ".safetensors", bytes=100_000)
    message = message_of(lambda: through(fault, s3_store, lambda store: store.write(step(), folder), SOON))
    assert "put_object of" in message
    assert time.monotonic() - begun < 20
    assert s3_store.find(step().artifact) is None


def test_checkpoints_through_the_same_file_system(s3_store: ArtifactStore) -> None:
    """Ray Train writes checkpoints with pyarrow, through the store's own fsspec object."""
    from pyarrow.fs import FSSpecHandler, PyFileSystem

    def write_and_read(store: ArtifactStore) -> bytes:
        place, fs = store.scratch("train"), PyFileSystem(FSSpecHandler(store.fs))
        fs.create_dir(f"{place}/checkpoint")
        with fs.open_output_stream(f"{place}/checkpoint/state") as file:
            file.write(LARGE["weights.safetensors"])
        with fs.open_input_file(f"{place}/checkpoint/state") as file:
            content: Any = file.read()
        return bytes(content)

    assert through(Fault("busy", times=3), s3_store, write_and_read) == LARGE["weights.safetensors"]
    begun = time.monotonic()
    with pytest.raises(OSError, match="there was no answer"):
        through(Fault("silent"), s3_store, write_and_read, SOON)
    assert time.monotonic() - begun < 20
