"""The environments of a project's Prefect processes, and of a shell that talks to its server."""

from __future__ import annotations

import os
import shlex
import shutil
import stat
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from infra.local.secret import authorization, make_secret, read_secret
from reseed.files import writable
from reseed.records import ReseedError

HOME = ".reseed/prefect"
ELSEWHERE = "run reseed in a folder that you can write to"
MARK = "RESEED_LOCAL_SERVER"  # in the environment of everything that `reseed up` starts; see infra/local/server.py
_EPHEMERAL = {"PREFECT_SERVER_EPHEMERAL_ENABLED": "true", "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "90"}
_KEPT_DAYS = 90  # for a finished run and its logs; results are in the store
_SOCKET, _SOCKET_NAME = 107, 47  # bytes of a Unix socket's path, and what PyTorch, wandb and others add to TMPDIR


@dataclass(frozen=True)
class LocalServer:
    """A project's Prefect server; a pid is 0 if that process does not run. `home` is its private PREFECT_HOME."""

    port: int
    server_pid: int
    worker_pid: int
    home: str

    @property
    def api_url(self) -> str:
        """The value of PREFECT_API_URL."""
        return f"{self.ui_url}/api"

    @property
    def ui_url(self) -> str:
        """The page to open in a browser."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def secret(self) -> str:
        """The value of PREFECT_API_AUTH_STRING. It is read each time, so no record, state file or log holds it."""
        return read_secret(Path(self.home).parents[1])

    @property
    def authorization(self) -> dict[str, str]:
        """The header that a request needs."""
        return authorization(self.secret)


def environment(project: Path, server: LocalServer | None) -> dict[str, str]:
    """The whole environment of a process that talks to this server; with None, ephemeral mode in the same home.

    It is our own without inherited `PREFECT_*`, since the user's key or profile would win. Use it as `env=`, or in this
    process as `os.environ.clear(); os.environ.update(…)` before Prefect is imported and reads its settings.
    """
    kept = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_") and k != MARK}
    home = writable(project.resolve() / HOME, ELSEWHERE)  # without it, ephemeral mode would wait in vain
    secret = make_secret(project.resolve())
    ours = {"PREFECT_HOME": str(home), "PREFECT_API_AUTH_STRING": secret, **_past_proxies()}
    ours |= {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1"}
    if server:
        return kept | ours | {"PREFECT_API_URL": server.api_url}
    return kept | ours | _EPHEMERAL | _guard(secret, "https://nobody.invalid")  # no browser needs it


def server_settings(server: LocalServer) -> dict[str, str]:
    """What only the server's own process gets: its key, the pages that may call it, and how long it keeps runs."""
    vacuum = "PREFECT_SERVER_SERVICES_DB_VACUUM"
    forget = {f"{vacuum}_ENABLED": "events,flow_runs", f"{vacuum}_RETENTION_PERIOD": str(_KEPT_DAYS * 86400)}
    return forget | _guard(server.secret, f"{server.ui_url},http://localhost:{server.port}")


def shell_lines(server: LocalServer, inherited: Mapping[str, str]) -> str:
    """The lines for `eval "$(reseed env)"`, after which `prefect` talks to this server, whatever was set before."""
    ours = {"PREFECT_API_URL": server.api_url, "PREFECT_API_AUTH_STRING": server.secret, "PREFECT_HOME": server.home}
    theirs = sorted(name for name in inherited if name.startswith("PREFECT_") and name not in ours)
    lines = [f"unset {' '.join(theirs)}"] if theirs else []
    return "\n".join([*lines, *(f"export {k}={shlex.quote(v)}" for k, v in (ours | _past_proxies()).items())])


def make_temporary(project: Path) -> dict[str, str]:
    """A private folder for the worker's temporary files: Prefect's fixed /tmp/runner_storage belongs to its first user.

    A reboot empties /tmp, and what the link then points to may be another user's. Ray stays where it was, since all
    flows of a machine look for its sessions there, unless that path is too long for its sockets.
    """
    from tasks.sessions import sockets_fit

    link = project / ".reseed/tmp"
    if link.is_symlink() and not _is_own(link.readlink()):
        link.unlink()
    if not link.exists() and len(os.fsencode(link)) + _SOCKET_NAME > _SOCKET:
        link.symlink_to(tempfile.mkdtemp(prefix="reseed-"))
    if not link.exists():
        link.mkdir(mode=0o700)
    folder = link.readlink() if link.is_symlink() else link
    if folder == link and link.stat().st_uid == os.getuid():
        link.chmod(0o700)
    if not _is_own(folder):
        raise ReseedError(f"{link} is not this user's folder: `reseed down`, remove it, and `reseed up` makes another")
    ray = tempfile.gettempdir() if sockets_fit(Path(tempfile.gettempdir())) else "/tmp"
    return {"TMPDIR": str(folder), "RAY_TMPDIR": os.environ.get("RAY_TMPDIR") or ray}


def remove_temporary(project: Path) -> None:
    """Remove the worker's temporary folder and what killed runs left there. Call it only while nothing is running."""
    link = project / ".reseed/tmp"
    folder = link.readlink() if link.is_symlink() else link
    if _is_own(folder):
        shutil.rmtree(folder, ignore_errors=True)
    if link.is_symlink():
        link.unlink()


def _is_own(folder: Path) -> bool:
    """True for a folder, not a link to one, that no other user could have written to."""
    try:
        status = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and not status.st_mode & 0o077


def _guard(secret: str, origin: str) -> dict[str, str]:
    return {"PREFECT_SERVER_API_AUTH_STRING": secret, "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": origin}


def _past_proxies() -> dict[str, str]:
    names = (os.environ.get("NO_PROXY") or os.environ.get("no_proxy"), "127.0.0.1", "localhost")
    return dict.fromkeys(("NO_PROXY", "no_proxy"), ",".join(filter(None, names)))
