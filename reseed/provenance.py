"""Where a result came from, and what may not be written down about it: secrets, paths of this machine, pickles."""

from __future__ import annotations

import importlib.metadata
import os
import pickle
import re
import subprocess
import zipfile
from functools import cache, partial
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

PACKAGES = ("reseed", "torch", "transformers", "peft", "deepspeed", "ray", "prefect", "tokenizers", "numpy")
SECRET_NAME = re.compile(r"(KEY|KEY_ID|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?|AUTH_STRING)$", re.IGNORECASE)
# a password may hold @, and a key of S3 slashes: they go on to the last @, unless what looks like one is a port
USER_INFO = re.compile(r"(\w://)(?:[^/?#\s]+@|[^/@\s]+@|[^/@\s:\[]+:(?!\d*(?:[/?#\s'\",;)\]>]|$))\S{0,500}@)")
PARAMETER = re.compile(r"([?&;#])([^=&;#?\s'\"<>]{1,100})=([^&;#\s\"<>]*[^&;#\s\"<>'()\[\],.:])")
# a parameter of an address whose name says that its value opens a door: presigned URLs of every cloud, and API keys
OPENS = re.compile(
    r"^x-(?:amz|goog)-|(?:token|secret|passwo?r?d|passphrase|pwd|signature|credential|authorization|bearer|hmac|jwt|hdnts|hdnea"
    r"|session|googleaccessid|key-pair-id|(?:[^a-z]|^)(?:pass|cred|sig|sas|ticket)|auth|key)(?:[_-]?id|s)?[_-]?\d*$"
    r"|^(?:code|policy)$"
)
PLAIN = re.compile(  # names that end like one of them and hold none: their values tell one source from another
    r"(?:sort|order|group|row|partition|primary|foreign|column|index|object|file|(?:^|[^a-z])(?:mon|tur|hoc))[_-]?keys?$"
    r"|(?:max|min|num|count)[_-]?tokens$"
)
SIGNED_WITH = re.compile(r"(expires|s[etvrpk]|spr|sk[oteskv]\w*|algorithm|date)", re.IGNORECASE)  # new each time
DEPTH = 4  # addresses within parameters of addresses that are looked into
ABSOLUTE = re.compile(r"^(file://|~[\w.-]*/|[A-Za-z]:[\\/]|\\\\|/[^/\s]+/)[^\n]*$")
PICKLE_SUFFIXES = (".pkl", ".pickle", ".pt", ".pth", ".ckpt", ".joblib")


@cache
def package_versions() -> dict[str, str]:
    """The versions of the packages that shape results; those that are not installed are left out."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


@cache
def git_commit(file: Path = Path(__file__)) -> str | None:
    """The commit of the code that runs, with `+` when tracked files differ from it; None outside a checkout.

    `file` must be tracked: a package installed below somebody else's checkout is not of their commit.
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
    """JSON values without secrets, absolute paths cut to their last part: what another machine may read."""
    return {portable_text(key): portable_value(value) for key, value in values.items()}


def portable_value(value: object) -> object:
    """The same for one value, however nested."""
    if isinstance(value, dict):
        return portable(value)
    if isinstance(value, list | tuple):
        return [portable_value(entry) for entry in value]
    return portable_text(os.fspath(value)) if isinstance(value, str | os.PathLike) else value


def portable_text(text: str) -> str:
    """The same for a text."""
    if is_absolute(text):
        text = "…/" + re.split(r"[\\/]", text.rstrip("\\/"))[-1]
    return without_secrets(text)


def is_absolute(text: str) -> bool:
    """One line that starts like a path. `/name/…` is one only where `/name` exists, so `/r/books` stays a text."""
    if not ABSOLUTE.match(text):
        return False
    return not text.startswith("/") or Path("/", text.split("/")[1]).exists()


def without_credentials(text: str, depth: int = DEPTH) -> str:
    """The text with user, password, signature and keys in its addresses starred out, and in addresses within those."""
    return PARAMETER.sub(partial(starred, depth=depth), USER_INFO.sub(r"\1***@", text))


def starred(parameter: re.Match[str], depth: int) -> str:
    """A parameter of an address without its value if that opens a door, or without what opens one in its value."""
    before, name, value = parameter.groups()
    inner = unquote(value)  # an address again, as those that redirect have it
    if opens(name) or (depth == 0 and "=" in inner):
        return f"{before}{name}=***"
    if depth > 0 and (clean := without_credentials(inner, depth - 1)) != inner:
        value = quote(clean, safe="*") if inner != value else clean
    return f"{before}{name}={value}"


def opens(name: str) -> bool:
    """True when the name of an address's parameter says that its value opens a door."""
    words = re.sub(r"([a-z])([A-Z])", r"\1_\2", unquote(unquote(name))).lower()
    return bool(OPENS.search(words) or OPENS.search(words.replace("_", ""))) and not PLAIN.search(words)


def unsigned(address: str) -> str:
    """What stays the same of an address when it is signed anew: the address itself where it holds no credential."""
    clean = without_credentials(address)
    if clean == address:
        return address
    place, _, query = clean.partition("?")
    parts = [(one, *one.split("=", 1)) for one in query.split("&")]
    kept = [one for one, name, *value in parts if value != ["***"] and not SIGNED_WITH.fullmatch(name)]
    return "?".join(filter(None, [place, "&".join(kept)]))


def without_secrets(text: str) -> str:
    """The text with credentials in addresses, and the values of variables named like secrets, starred out."""
    text = without_credentials(text)
    for name, secret in os.environ.items():
        if len(secret) >= 8 and SECRET_NAME.search(name):
            text = text.replace(secret, "***")
    return text


def is_pickle(path: Path) -> bool:
    """True for what runs code when it is loaded: by its name, as torch's zip, or as a bare pickle."""
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
