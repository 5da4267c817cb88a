"""Where a local Ray keeps its sockets and logs, and what is left of those that were killed."""

from __future__ import annotations

import os
import shutil
import socket
import stat
from pathlib import Path

import psutil

from reseed.leftovers import age
from reseed.records import ReseedError

STARTING = 600.0  # seconds: so long a session without sockets may be one that starts, in another container


def session_root() -> Path:
    """A folder of this user's alone. Ray's own default is shared by all users, who read each other's logs there.

    Its path is short, because a socket's is cut at 107 bytes: a long TMPDIR would keep Ray from starting.
    """
    path = Path(os.environ.get("RAY_TMPDIR") or "/tmp") / f"ray-reseed-{os.getuid()}"
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = path.lstat()
        if status.st_uid != os.getuid() or not stat.S_ISDIR(status.st_mode):
            raise PermissionError("it belongs to another user, or is no folder")
        path.chmod(0o700)
    except OSError as error:
        raise ReseedError(f"Ray's folder {path}: {error}; set RAY_TMPDIR to a short path that you can write") from error
    return path / "ray"  # which Ray opens to everybody


def take_away_sessions(root: Path) -> None:
    """Remove the sessions of flows that have ended."""
    for session in root.glob("session_*_*"):
        if not session.is_symlink() and not is_live(session):
            shutil.rmtree(session, ignore_errors=True)


def is_live(session: Path) -> bool:
    """True when the process that Ray named the session after is there, or somebody listens on one of its sockets, as
    in another container that shares the folder."""
    pid = session.name.rpartition("_")[2]
    if pid.isdigit() and psutil.pid_exists(int(pid)):
        return True
    sockets = list((session / "sockets").glob("*"))
    return any(map(is_open, sockets)) if sockets else age(session) < STARTING


def is_open(path: Path) -> bool:
    """True unless it is certain that nobody listens."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:
            return True
    return True
