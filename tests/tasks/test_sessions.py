"""What killed runs leave in Ray's folder: only the dead sessions go."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from reseed.recipe.profile import Profile
from reseed.records import ReseedError
from tasks import cluster
from tasks.cluster import start_ray
from tasks.sessions import remove_dead_sessions, session_root


@pytest.fixture
def short() -> Iterator[Path]:
    """A socket's path has at most 107 bytes, and pytest's own folders are longer where files are tested side by side."""
    with tempfile.TemporaryDirectory(prefix="r", dir="/tmp") as folder:
        yield Path(folder)


@pytest.fixture
def place(short: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder."""
    monkeypatch.chdir(short)
    return short


def dead_pid() -> int:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    return ended.pid


def session(place: Path, pid: int, listening: bool = False) -> tuple[Path, socket.socket]:
    """A session's folder with a socket, on which somebody listens or did."""
    made = place / f"session_2026-01-01_00-00-00_{time.monotonic_ns()}_{pid}"
    (made / "sockets").mkdir(parents=True)
    (made / "logs").mkdir()
    server = socket.socket(socket.AF_UNIX)
    server.bind(str((made / "sockets" / "plasma_store").relative_to(place)))
    if listening:
        server.listen()
    return made, server


def test_sessions_of_dead_flows_are_taken_away(place: Path) -> None:
    gone = dead_pid()
    dead, closed = session(place, gone)
    closed.close()
    alive, own = session(place, os.getpid())
    elsewhere, listening = session(place, gone, listening=True)  # its process has another number in its container
    starting = place / f"session_2026-01-01_00-00-00_1_{gone}"
    ended = place / f"session_2026-01-01_00-00-00_2_{gone}"
    for folder in (starting, ended):
        (folder / "sockets").mkdir(parents=True)
    os.utime(ended, (0, 0))
    (place / "session_latest").symlink_to(alive)
    try:
        remove_dead_sessions(place)
    finally:
        own.close()
        listening.close()
    assert not dead.exists()
    assert not ended.exists()
    assert all(folder.is_dir() for folder in (alive, elsewhere, starting))
    assert (place / "session_latest").is_symlink()


def test_what_another_boot_or_machine_left_goes_when_it_is_silent(place: Path) -> None:
    gone = dead_pid()
    roots = [place / name for name in ("here", "there", "then")]
    for root in roots:
        (root / f"session_2026-01-01_00-00-00_1_{gone}" / "logs").mkdir(parents=True)
        (root / f"session_2026-01-01_00-00-00_1_{gone}" / "logs" / "debug_state.txt").touch()
        (root / "session_latest").symlink_to(f"session_2026-01-01_00-00-00_1_{gone}")
    there, then = ([*root.rglob("*")] for root in roots[1:])
    for path in [*roots, *then, *(path for path in there if path.name != "debug_state.txt")]:
        os.utime(path, (0, 0), follow_symlinks=False)
    remove_dead_sessions(roots[0])
    assert sorted(path.name for path in place.iterdir()) == ["here", "there"]
    assert all(path.exists() for path in there), "whose process has another number there"


def test_the_folder_is_one_s_own(monkeypatch: pytest.MonkeyPatch, short: Path) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(short))
    own = short / f"ray-reseed-{os.getuid()}"
    own.mkdir(mode=0o755)
    assert session_root().parent == own
    assert Path("/proc/sys/kernel/random/boot_id").read_text().startswith(session_root().name)
    assert stat.S_IMODE(own.stat().st_mode) == 0o700
    own.rmdir()
    own.symlink_to(short)  # by somebody who was first, to have our files elsewhere
    with pytest.raises(ReseedError, match=r"ray-reseed-\d+: .*set RAY_TMPDIR to a short path"):
        session_root()


def test_a_folder_whose_path_is_too_long_for_ray(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 15)
    monkeypatch.setenv("RAY_TMPDIR", str(folder))
    with pytest.raises(ReseedError, match=r"a socket's path has more than 107 bytes; set RAY_TMPDIR to a short path"):
        start_ray(Profile.model_construct())
    assert not folder.exists()


@pytest.mark.parametrize("error", [OSError("AF_UNIX path"), Exception("The current node timed out during startup")])
def test_a_ray_that_does_not_start_is_one_message(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)

    def start_local(cpus: int | None) -> None:
        raise error

    monkeypatch.setattr(cluster, "start_local", start_local)
    with pytest.raises(ReseedError, match=f"Ray does not start on this machine .{error}.; look for free memory"):
        start_ray(Profile.model_construct())
