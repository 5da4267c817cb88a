"""The key of a project's Prefect server: only those who can read `.reseed/secret` may use the server.

Without a key, any web page open on this machine, and any other user of it, could have the worker run commands.
"""

from __future__ import annotations

import os
import re
import secrets
import stat
from base64 import b64encode
from pathlib import Path

from reseed.files import create_file
from reseed.records import ReseedError

_SECRET = re.compile(r"reseed:[A-Za-z0-9_-]{43}")


def make_secret(project: Path) -> str:
    """The project's secret, created if there is none, atomically and readable by its owner only.

    Raises `ReseedError` if others can read it.
    """
    path = secret_file(project)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not path.exists():  # Prefect wants user:password
        create_file(path, f"reseed:{secrets.token_urlsafe(32)}\n".encode(), 0o600)
    return read_secret(project)


def read_secret(project: Path) -> str:
    """The project's secret, empty if there is none. Raises `ReseedError` if it is damaged or others can read it."""
    path = secret_file(project)
    try:
        with path.open() as file:
            mode, text = stat.S_IMODE(os.fstat(file.fileno()).st_mode), file.read().strip()
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise _unusable(path, f"cannot be read ({error})") from error
    if mode & 0o077:
        raise _unusable(path, f"has mode {mode:04o}, wanted 0600")
    if not _SECRET.fullmatch(text):
        raise _unusable(path, "holds no secret that `reseed up` made")
    return text


def _unusable(path: Path, seen: str) -> ReseedError:
    cure = "`reseed down`, delete the file, `reseed up` makes another; its file system must know modes"
    return ReseedError(f"the Prefect server's key {path} {seen}: {cure}")


def secret_file(project: Path) -> Path:
    """The file that holds the secret."""
    return project / ".reseed/secret"


def authorization(secret: str) -> dict[str, str]:
    """The header that goes with every request to the API."""
    return {"Authorization": f"Basic {b64encode(secret.encode()).decode()}"} if secret else {}
