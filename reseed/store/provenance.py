"""Where a result came from, without what must not be stored: paths of this machine, secrets, pickles."""

from __future__ import annotations

import importlib.metadata
import os
import pickle
import re
import subprocess
import zipfile
from functools import cache
from pathlib import Path
from typing import Any

from reseed.credentials import without_secrets

PACKAGES = ("reseed", "torch", "transformers", "peft", "deepspeed", "ray", "prefect", "tokenizers", "numpy")
ABSOLUTE = re.compile(r"^(file://|~[\w.-]*/|[A-Za-z]:[\\/]|\\\\|/[^/\s]+/)[^\n]*$")
PICKLE_SUFFIXES = (".pkl", ".pickle", ".pt", ".pth", ".ckpt", ".joblib")


@cache
def package_versions() -> dict[str, str]:
    """The versions of the packages that shape results, if they are installed."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


@cache
def git_commit(file: Path = Path(__file__)) -> str | None:
    """The commit of the running code, with `+` if tracked files differ from it; None outside a checkout.

    `file` must be tracked: a package installed inside another project's checkout is not of that commit.
    """
    git = ["git", "-C", str(file.parent)]
    try:
        commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10)
        tracked = subprocess.run([*git, "ls-files", "--error-unmatch", file.name], capture_output=True, timeout=10)
        if commit.returncode != 0 or tracked.returncode != 0:
            return None
        changed = subprocess.run([*git, "diff", "--quiet", "HEAD"], capture_output=True, timeout=10).returncode != 0
    except (OSError, subprocess.TimeoutExpired):
        return None
    return commit.stdout.strip() + ("+" if changed else "")


def portable(values: dict[str, Any]) -> dict[str, Any]:
    """JSON values fit for another machine to read: no secrets, and absolute paths cut to their last part."""
    return {portable_text(key): portable_value(value) for key, value in values.items()}


def portable_value(value: object) -> object:
    """One value, however nested, made portable."""
    if isinstance(value, dict):
        return portable(value)
    if isinstance(value, list | tuple):
        return [portable_value(entry) for entry in value]
    return portable_text(os.fspath(value)) if isinstance(value, str | os.PathLike) else value


def portable_text(text: str) -> str:
    """A text without secrets, cut to its last part if it is an absolute path."""
    if is_absolute(text):
        text = "…/" + re.split(r"[\\/]", text.rstrip("\\/"))[-1]
    return without_secrets(text)


def is_absolute(text: str) -> bool:
    """True for one line that looks like an absolute path. `/name/…` is one only where `/name` exists, so `/r/books` is not."""
    if not ABSOLUTE.match(text):
        return False
    return not text.startswith("/") or Path("/", text.split("/")[1]).exists()


def is_pickle(path: Path) -> bool:
    """True for a file that runs code when it is loaded: by its suffix, as torch's zip, or as a bare pickle."""
    if path.suffix in PICKLE_SUFFIXES:
        return True
    if path.suffix == ".safetensors" or path.stat().st_size < 3:
        return False
    with path.open("rb") as file:
        head = file.read(4)
        file.seek(-1, os.SEEK_END)
        last = file.read(1)
    if head.startswith(b"PK\x03\x04") and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("data.pkl") for name in archive.namelist())
    return head[0] == 0x80 and 2 <= head[1] <= pickle.HIGHEST_PROTOCOL and head[2] != 0 and last == pickle.STOP
