"""What killed runs leave in Ray's folder: only the dead sessions go."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from reseed.records import ReseedError
from tasks.sessions import session_root, take_away_sessions


@pytest.fixture
def place(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A short folder: a socket's path has at most 107 bytes."""
    folder = tmp_path_factory.mktemp("s")
    monkeypatch.chdir(folder)
    return folder


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
        take_away_sessions(Path())
    finally:
        own.close()
        listening.close()
    assert not dead.exists()
    assert not ended.exists()
    assert all(folder.is_dir() for folder in (alive, elsewhere, starting))
    assert (place / "session_latest").is_symlink()


def test_the_folder_is_one_s_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    own = tmp_path / f"ray-reseed-{os.getuid()}"
    own.mkdir(mode=0o755)
    assert session_root().parent == own
    assert stat.S_IMODE(own.stat().st_mode) == 0o700
    own.rmdir()
    own.symlink_to(tmp_path)  # by somebody who was first, to have our files elsewhere
    with pytest.raises(ReseedError, match=r"ray-reseed-\d+: .*set RAY_TMPDIR to a short path"):
        session_root()
