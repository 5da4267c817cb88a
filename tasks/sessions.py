"""Where local Rays keep their sockets and logs, and removing those of killed ones."""

from __future__ import annotations

import os
import shutil
import socket
import stat
from pathlib import Path

import psutil

from reseed.records import ReseedError
from reseed.store.lease import this_place
from reseed.store.leftovers import age

STARTING = 600.0  # seconds for which a session without sockets may still be starting, in another container
SILENT = 86_400.0  # seconds
SOCKET = 107  # bytes of a Unix socket's path
SESSION = "session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store"  # the longest that Ray adds


def session_root() -> Path:
    """A folder of this user alone. Ray's default is shared by all users, who could read each other's logs.

    Its path is short, because a socket's is cut at 107 bytes: a long TMPDIR would keep Ray from starting. It names the
    boot: other machines may have their sessions beside it, and whether those live cannot be told from here.
    """
    place = Path(os.environ.get("RAY_TMPDIR") or "/tmp")
    path = place / f"ray-reseed-{os.getuid()}"
    try:
        if not sockets_fit(place):
            raise OSError(f"with what Ray adds, a socket's path has more than {SOCKET} bytes")
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = path.lstat()
        if status.st_uid != os.getuid() or not stat.S_ISDIR(status.st_mode):
            raise PermissionError("it belongs to another user, or is not a folder")
        path.chmod(0o700)
    except OSError as error:
        raise ReseedError(f"Ray's folder {path}: {error}; set RAY_TMPDIR to a short path that you can write") from error
    return _root(place)  # which Ray opens to everybody


def sockets_fit(place: Path) -> bool:
    """Whether Ray can start with its folder below this one: about 20 bytes are left for it."""
    return len(os.fsencode(_root(place) / SESSION)) <= SOCKET


def _root(place: Path) -> Path:
    boot = this_place().kernel[:6]  # containers of one machine share it: they see each other's sockets
    return place / f"ray-reseed-{os.getuid()}" / (boot or "ray")


def remove_dead_sessions(root: Path) -> None:
    """Remove the sessions of ended flows, and the roots of boots and machines where nothing is alive."""
    for other in root.parent.iterdir():
        if other != root and is_silent(other):
            shutil.rmtree(other, ignore_errors=True)
    for session in root.glob("session_*_*"):
        if not session.is_symlink() and not is_live(session):
            shutil.rmtree(session, ignore_errors=True)


def is_silent(root: Path) -> bool:
    """True when nothing was written for a day: a living Ray writes its state into its logs every ten seconds."""
    seen = (root, *root.glob("session_*"), *root.glob("session_*/logs"), *root.glob("session_*/logs/*"))
    return all(age(path) > SILENT for path in seen if not path.is_symlink())


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
