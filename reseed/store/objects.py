"""Named bytes below one root, in a local folder or on S3: the few operations that the store needs of either.

Both create and swap are atomic: of several writers at once exactly one succeeds. Errors are those of the file system or
of s3fs; the store explains them.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from reseed.files import create_file, locked_soon, write_atomically
from reseed.store.errors import s3_answer
from reseed.store.patience import PATIENCE, Patience

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

CONFLICT_TRIES = 8
SWAP_SECONDS = 5.0  # to wait for another's swap of the same object; one that takes longer was stopped midway
FEW = 3  # requests for single objects cost less than one page of a listing


class Objects(Protocol):
    """What the store needs. Paths are relative to the root."""

    def read(self, path: str) -> bytes | None:
        """An object's content; None if there is none."""

    def read_many(self, paths: Sequence[str]) -> dict[str, bytes]:
        """The contents of those that exist, requested together."""

    def there(self, paths: Sequence[str]) -> set[str]:
        """Those of the paths that exist; nothing is read."""

    def names(self, place: str, start: str = "") -> list[str]:
        """The names, sorted, of the folders directly below a place that begin with `start`; nothing is read."""

    def find(self, pattern: str) -> dict[str, bytes]:
        """The objects whose path matches, part by part, a pattern such as `refs/*/*.json`."""

    def create(self, path: str, content: bytes) -> bool:
        """Create an object; False if there is one already."""

    def swap(self, path: str, old: bytes, new: bytes) -> bool:
        """Replace an object; False if its content is not `old`, or another's swap of it does not end."""

    def put(self, source: Path, path: str) -> None:
        """Copy a file to an object whose path nobody else uses."""

    def get(self, path: str, target: Path) -> None:
        """Copy an object to a file."""

    def remove(self, path: str) -> None:
        """Remove everything below a path."""


class LocalObjects:
    """Files below a folder, shared by processes on one machine or on one shared file system."""

    def __init__(self, root: str) -> None:
        self.root = Path(root)

    def read(self, path: str) -> bytes | None:
        """An object's content; None if there is none."""
        try:
            return (self.root / path).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def read_many(self, paths: Sequence[str]) -> dict[str, bytes]:
        """The contents of those that exist."""
        return {path: content for path in paths if (content := self.read(path)) is not None}

    def there(self, paths: Sequence[str]) -> set[str]:
        """Those of the paths that exist."""
        return {path for path in paths if (self.root / path).is_file()}

    def names(self, place: str, start: str = "") -> list[str]:
        """The names, sorted, of the folders directly below a place that begin with `start`."""
        try:
            with os.scandir(self.root / place) as entries:
                return sorted(entry.name for entry in entries if entry.name.startswith(start) and entry.is_dir())
        except (FileNotFoundError, NotADirectoryError):
            return []

    def find(self, pattern: str) -> dict[str, bytes]:
        """The objects whose path matches, part by part, a pattern such as `refs/*/*.json`."""
        paths = [path.relative_to(self.root).as_posix() for path in self.root.glob(pattern)]
        return {path: content for path in sorted(paths) if (content := self.read(path)) is not None}

    def create(self, path: str, content: bytes) -> bool:
        """Create an object; False if there is one already."""
        return create_file(self.root / path, content)

    def swap(self, path: str, old: bytes, new: bytes) -> bool:
        """Replace an object; False if its content is not `old`."""
        with locked_soon((self.root / path).with_suffix(".lock"), SWAP_SECONDS) as mine:
            if not mine or self.read(path) != old:
                return False
            write_atomically(self.root / path, new)
            return True

    def put(self, source: Path, path: str) -> None:
        """Copy a file to an object whose path nobody else uses, and wait until it is on disk."""
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
        with target.open("rb") as file:
            os.fsync(file.fileno())

    def get(self, path: str, target: Path) -> None:
        """Copy an object to a file."""
        shutil.copyfile(self.root / path, target)

    def remove(self, path: str) -> None:
        """Remove everything below a path."""
        if (self.root / path).exists():
            shutil.rmtree(self.root / path)


class S3Objects:
    """Objects in a bucket, through s3fs. The server must honour If-None-Match and If-Match on puts."""

    def __init__(self, fs: AbstractFileSystem, root: str) -> None:
        self.fs, self.root = fs, root

    def read(self, path: str) -> bytes | None:
        """An object's content; None if there is none."""
        try:
            return bytes(self.fs.cat_file(f"{self.root}/{path}", max_concurrency=1))  # 1: no HEAD before the GET
        except FileNotFoundError as error:
            if s3_answer(error)[0] == "NoSuchBucket":
                raise
            return None

    def find(self, pattern: str) -> dict[str, bytes]:
        """The objects whose path matches, part by part, a pattern such as `refs/*/*.json`."""
        fixed = pattern.split("*")[0].rpartition("/")[0]
        names = [name.removeprefix(f"{self.root}/") for name in self.fs.find(f"{self.root}/{fixed}")]
        return self.read_many([name for name in sorted(names) if matches(name, pattern)])

    def names(self, place: str, start: str = "") -> list[str]:
        """The names, sorted, of the folders directly below a place that begin with `start`: 1 000 a request."""
        pages = self._pages("/".join([*filter(None, [place]), start]), Delimiter="/")
        folders = [folder["Prefix"] for page in pages for folder in page.get("CommonPrefixes", [])]
        return sorted({folder.rstrip("/").rpartition("/")[2] for folder in folders})

    def there(self, paths: Sequence[str]) -> set[str]:
        """Those of the paths that exist.

        A page of a listing costs as much as requests for a few objects, and shows which of a thousand folders exist.
        Only what is in those is requested: listing it too took SeaweedFS longer.
        """
        groups: dict[str, set[str]] = {}
        for path in paths:  # kind/name/key/manifest.json
            groups.setdefault(path.rsplit("/", 2)[0], set()).add(path)
        with ThreadPoolExecutor(8) as pool:
            likely: set[str] = set().union(*pool.map(self._likely, groups, groups.values()))
        return set(self.read_many(sorted(likely)))

    def _likely(self, place: str, wanted: set[str]) -> set[str]:
        if len(wanted) <= FEW:
            return wanted
        folders = set(self.names(place))
        return {path for path in wanted if path.rsplit("/", 2)[1] in folders}

    @property
    def _prefix(self) -> str:
        """The prefix of every key in the bucket."""
        return "".join(f"{part}/" for part in [self.root.partition("/")[2]] if part)

    def _pages(self, below: str, **options: str) -> Iterator[dict[str, Any]]:
        """The pages of a listing of keys that begin with `below`, 1 000 entries each."""
        bucket = self.root.partition("/")[0]
        while True:
            page = self.fs.call_s3("list_objects_v2", Bucket=bucket, Prefix=self._prefix + below, **options)
            yield page
            if not page.get("IsTruncated"):
                return
            options["ContinuationToken"] = page["NextContinuationToken"]

    def read_many(self, paths: Sequence[str]) -> dict[str, bytes]:
        """The contents of those that exist, many requests at once."""
        if not paths:
            return {}
        full = [f"{self.root}/{path}" for path in paths]
        contents = self.fs.cat(full, on_error="return", max_concurrency=1)
        for content in contents.values():
            if isinstance(content, BaseException) and not isinstance(content, FileNotFoundError):
                raise content
        return {
            name.removeprefix(f"{self.root}/"): bytes(content)
            for name, content in sorted(contents.items())
            if not isinstance(content, BaseException)
        }

    def create(self, path: str, content: bytes) -> bool:
        """Create an object; False if there is one already."""
        return self._put_if(path, content, {"IfNoneMatch": "*"})

    def swap(self, path: str, old: bytes, new: bytes) -> bool:
        """Replace an object; False if its content is not `old`."""
        try:  # first the tag, then the content: a change in between makes If-Match fail
            tag = self.fs.info(f"{self.root}/{path}").get("ETag")
        except FileNotFoundError:
            tag = None
        return self.read(path) == old and tag is not None and self._put_if(path, new, {"IfMatch": tag})

    def put(self, source: Path, path: str) -> None:
        """Copy a file to an object whose path nobody else uses."""
        try:
            self.fs.put_file(str(source), f"{self.root}/{path}")
        except OSError as error:  # the answer to a large put's last request was lost, and the request repeated
            if s3_answer(error)[0] != "NoSuchUpload":
                raise
            if self.fs.info(f"{self.root}/{path}")["size"] != source.stat().st_size:
                raise

    def get(self, path: str, target: Path) -> None:
        """Copy an object to a file through one connection: s3fs resumes when that breaks, but not when one of several does."""
        self.fs.get_file(f"{self.root}/{path}", str(target), max_concurrency=1)

    def remove(self, path: str) -> None:
        """Remove everything below a path."""
        if self.fs.exists(f"{self.root}/{path}"):
            self.fs.rm(f"{self.root}/{path}", recursive=True)

    def _put_if(self, path: str, content: bytes, condition: dict[str, str]) -> bool:
        """Put if the condition holds; False if it does not.

        s3fs and botocore repeat a put whose answer was lost, and the repetition then fails. So the object itself says who
        won, and `content` must be unique to its writer.
        """
        for attempt in range(CONFLICT_TRIES):
            try:
                self.fs.pipe_file(f"{self.root}/{path}", content, **condition)
                return True
            except OSError as error:
                status = s3_answer(error)[1]
                if isinstance(error, FileExistsError) or status in (404, 412):
                    return self.read(path) == content
                if status != 409 or attempt == CONFLICT_TRIES - 1:
                    raise
                time.sleep(0.1 * 2**attempt)  # 409: another put of this object is in progress, and may yet fail
        raise AssertionError("unreachable")


def matches(path: str, pattern: str) -> bool:
    """True if every part of the path matches the pattern's part at its position."""
    parts, wanted = path.split("/"), pattern.split("/")
    return len(parts) == len(wanted) and all(map(fnmatchcase, parts, wanted))


def open_objects(url: str, patience: Patience = PATIENCE) -> tuple[Objects, AbstractFileSystem, str]:
    """Open a folder or s3://bucket/prefix; return its objects, fsspec file system and root."""
    import fsspec

    if url.startswith(("s3://", "s3a://")):
        from reseed.store.patient_s3 import PatientS3

        # cached listings would hide what others wrote since, and the tag that a swap compares
        fs, root = PatientS3(patience=patience, use_listings_cache=False), PatientS3._strip_protocol(url.rstrip("/"))
        return S3Objects(fs, root), fs, root
    fs, root = fsspec.core.url_to_fs(str(Path(url.removeprefix("file://")).expanduser().absolute()))
    return LocalObjects(root), fs, root
