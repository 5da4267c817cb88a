"""The next process removes what a killed one left behind.

An owner holds its folder by a lock, which the kernel releases when the process ends, however it ends. So it is known
that an owner is gone without guessing by process ids, which are reused, or by clocks.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import stat
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from reseed.store.manifest import Manifest
from reseed.store.objects import LocalObjects, Objects, S3Objects

# Strict, because a user's own folder may be called reseed-something.
TEMPORARY = re.compile(r"reseed-(work-[0-9a-f]{12}|train-[0-9a-f]{12}-[0-9a-f]{32})")
ATTEMPT = re.compile(r"[0-9a-f]{12}")
FRESH = 60.0  # seconds: a new folder exists a moment before it is locked
REMOTE = timedelta(days=1)  # S3 has no locks, so a writer elsewhere may still be alive


@contextmanager
def work_folder() -> Iterator[Path]:
    """An empty temporary folder, removed after the block."""
    folder = Path(tempfile.gettempdir()) / f"reseed-work-{uuid.uuid4().hex[:12]}"
    folder.mkdir(mode=0o700)
    try:
        with held(folder):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Lock the folder while the block runs, so that others see that its owner lives."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with suppress(OSError):  # a file system without locks: then nobody can find the folder abandoned either
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def is_abandoned(folder: Path) -> bool:
    """True for a folder of this user that no process holds."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.fstat(descriptor).st_uid == os.getuid()
    except OSError:
        return False
    finally:
        os.close(descriptor)


def remove_temporary_folders() -> None:
    """Remove the temporary folders of processes that were killed."""
    for folder in Path(tempfile.gettempdir()).glob("reseed-*"):
        if TEMPORARY.fullmatch(folder.name) and age(folder) > FRESH and is_abandoned(folder):
            shutil.rmtree(folder, ignore_errors=True)


def age(path: Path) -> float:
    """Seconds since the last change of a file or folder; 0 if it is gone or a link."""
    try:
        status = path.lstat()
    except OSError:
        return 0.0
    return 0.0 if stat.S_ISLNK(status.st_mode) else time.time() - status.st_mtime


def held_attempt(objects: Objects, place: str) -> AbstractContextManager[None]:
    """Create and hold an attempt's folder in a local store while it is written; S3 has no folders."""
    if not isinstance(objects, LocalObjects):
        return nullcontext()
    folder = objects.root / place
    folder.mkdir(parents=True)
    return held(folder)


def take_away_attempts(objects: Objects, manifest: Manifest) -> None:
    """Remove what killed writers of an artifact left: once there is a manifest, no other attempt can ever count."""
    with suppress(Exception):  # garbage must not fail the step that finds it
        if isinstance(objects, LocalObjects):
            for folder in (objects.root / manifest.artifact.path).iterdir():
                if ATTEMPT.fullmatch(folder.name) and folder.name != manifest.attempt and is_abandoned(folder):
                    shutil.rmtree(folder, ignore_errors=True)
        if not isinstance(objects, S3Objects):
            return
        place = f"{objects.root}/{manifest.artifact.path}/"
        newest: dict[str, datetime] = {}
        for path, about in objects.fs.find(place, detail=True).items():
            attempt = path.removeprefix(place).partition("/")[0]
            newest[attempt] = max(about["LastModified"], newest.get(attempt, about["LastModified"]))
        for attempt, changed in newest.items():
            old = datetime.now(UTC) - changed > REMOTE
            if ATTEMPT.fullmatch(attempt) and attempt != manifest.attempt and old:
                objects.remove(f"{manifest.artifact.path}/{attempt}")
