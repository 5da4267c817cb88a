"""Files on this machine: locks between processes, folders that appear whole or not at all, digests."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from reseed.records import ReseedError


def canonical_json(value: object) -> str:
    """JSON with sorted keys and no spaces: equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest(value: object, length: int = 32) -> str:
    """The first `length` hex digits of the SHA-256 of a JSON value."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:length]


def file_digest(path: Path) -> str:
    """The SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """One JSON object a line."""
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file if line.strip()]


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """One JSON object a line, keys sorted, so that equal rows give equal bytes."""
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, sort_keys=True, ensure_ascii=False) + "\n" for row in rows)


def writable(folder: Path, cure: str) -> Path:
    """The folder, made if it is missing; where this user cannot write, a `ReseedError` that ends with the cure."""
    reason = ""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = error.strerror or str(error)
    if reason or not os.access(folder, os.W_OK | os.X_OK):
        raise ReseedError(f"cannot write in {folder} ({reason or 'no permission, or mounted read-only'}): {cure}")
    return folder


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on `path`, which other processes of this machine wait for; a killed holder lets go."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def locked_soon(path: Path, seconds: float) -> Iterator[bool]:
    """The same; False when the lock was not to be had within `seconds`: a holder that was stopped keeps it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + seconds
    with path.open("a") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > end:
                    yield False
                    return
                time.sleep(0.01)
            else:
                yield True
                return


def write_atomically(path: Path, content: bytes) -> None:
    """Replace `path` by `content`; a reader sees the old or the new bytes, never a part."""
    with written_beside(path, content) as temporary:
        os.replace(temporary, path)


def create_file(path: Path, content: bytes, mode: int = 0o666) -> bool:
    """Create a file with all its content at once, or say False because it is there: a hard link does both.

    With mode 0o600 nobody else can read it at any time.
    """
    try:
        with written_beside(path, content, mode) as temporary:
            os.link(temporary, path)
    except FileExistsError:
        return False
    return True


@contextmanager
def written_beside(path: Path, content: bytes, mode: int = 0o666) -> Iterator[Path]:
    """A file with `content` beside `path`, on the disk, with what the umask leaves of `mode`; gone after the block."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".new-{uuid.uuid4().hex}"
    try:
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A scratch folder that becomes `path` when the block ends well, and vanishes when it does not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.parent / f".{path.name}-{uuid.uuid4().hex[:8]}"  # mkdtemp would keep it from other users
    scratch.mkdir()
    try:
        yield scratch
        scratch.rename(path)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def cache_root() -> Path:
    """`$RESEED_CACHE`, or `~/.cache/reseed`."""
    return Path(os.environ.get("RESEED_CACHE") or "~/.cache/reseed").expanduser()
