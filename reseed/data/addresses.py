"""Files at an address: fetched into the cache once, and again when the server says that they have changed.

The cache keeps a file under the SHA-256 of its content, so a file that was planned with stays while another comes.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from reseed.credentials import without_credentials, without_secrets
from reseed.data.readers import kind_of
from reseed.files import cache_root, digest, file_digest, locked, locked_soon, writable, write_atomically
from reseed.network.downloads import FULL, NoRoomError, download, get, settled
from reseed.records import ReseedError

TAGS = ("ETag", "etag", "blob_id", "md5Hash", "content_md5")  # what file systems call a version
TIMES = ("LastModified", "last_modified", "mtime")  # say it only together with the size
CURE = "set RESEED_CACHE to a folder that you can write to; sources are kept there"
COPIES = 3
SHORT = 4  # letters; a shorter password would star out parts of words, and is starred out in addresses alone


@dataclass(frozen=True)
class Fetched:
    """A file in the cache, by its content, and what its server called its version."""

    name: str
    version: dict[str, str]

    @property
    def path(self) -> Path:
        """Where it is."""
        return cache_root() / "sources" / self.name


class UnreachableError(Exception):
    """Nobody answers, or not now; what was fetched before may do."""


def fetch(address: str) -> tuple[Path, str]:
    """The file at an address as it is now, and a note where that is not known. Takes whatever fsspec knows.

    A server that does not say when its file changed is asked for the whole file each time. Where nobody answers, what was
    fetched before is taken. Raises ReseedError, without the address's credentials.
    """
    scheme, _, rest = address.partition("://")
    address = f"{scheme.lower()}://{rest}"  # HTTPS:// is the same, and fsspec knows lower case only
    shown = without_credentials(address)
    kind_of(shown)
    writable(cache_root() / "sources", CURE)
    writable(cache_root() / "locks", CURE)
    key = digest(address)  # with its credentials: who asks may decide what comes
    try:
        with lock_of(key, shown):
            return fetch_alone(address, key, shown)
    except ReseedError:
        raise
    except Exception as error:
        raise unfetched(shown, address, error) from (error if shown == address else None)


def fetch_alone(address: str, key: str, shown: str) -> tuple[Path, str]:
    """`fetch`, for whoever holds the address's lock."""
    entry = cache_root() / "sources" / f"{key}.json"
    known = read_entry(entry)
    try:
        version = version_of(address, tries=3 if known is None else 1)
        if known is None or not version or version != known.version:
            known = Fetched(keep(address, key, kind_of(shown), tries=None if known is None else 2), version)
            write_atomically(entry, json.dumps(asdict(known)).encode())
    except UnreachableError:
        if known is None:
            raise
        return known.path, f"{shown}: cannot be reached; taken as it was when it was last fetched"
    return known.path, ""


@contextmanager
def lock_of(key: str, shown: str) -> Iterator[None]:
    """The lock of one address; says so where another process has it for long."""
    path = cache_root() / "locks" / f"{key}.lock"
    with locked_soon(path, 5) as mine:
        if mine:
            yield
            return
    sys.stderr.write(f"{shown}: waiting for another process that fetches it (it holds {path})\n")
    with locked(path):
        yield


def unfetched(shown: str, address: str, error: Exception) -> ReseedError:
    """Why an address cannot be read."""
    cause = error.__cause__ if isinstance(error, UnreachableError) and error.__cause__ else error
    named = "" if isinstance(cause, ReseedError) else f"{type(cause).__name__}: "
    reason = named + without_secrets(str(error)).replace(address, shown)
    with suppress(ValueError):  # an address that cannot be read may be why
        split = urlsplit(address)
        for secret in (split.username, split.password):
            reason = reason.replace(secret, "***") if secret and len(secret) >= SHORT else reason
    if getattr(error, "errno", None) in FULL:
        return ReseedError(
            f"data.train: cannot fetch {shown} ({reason}); no space is left in {cache_root()}: free some"
        )
    return ReseedError(
        f"data.train: cannot fetch {shown} ({reason}); check the address and the network, or "
        "download it and give its path with --set data.train=PATH"
    )


def read_entry(entry: Path) -> Fetched | None:
    """What is in the cache of an address; nothing where it is not what was fetched."""
    try:
        found = Fetched(**json.loads(entry.read_text()))
        return found if isinstance(found.version, dict) and file_digest(found.path) == found.path.stem else None
    except (OSError, ValueError, TypeError):
        return None


def version_of(address: str, tries: int) -> dict[str, str]:
    """What the server says of the file's version; empty where it says nothing that can be relied on.

    A silent web server is waited for `tries` times 30 seconds.
    """
    if not address.startswith(("http://", "https://")):
        return version_in_file_system(address)
    for before in range(tries - 1):
        with suppress(UnreachableError):
            return version_on_web(address)
        time.sleep(0.5 * 2**before)
    return version_on_web(address)


def version_on_web(address: str) -> dict[str, str]:
    """The ETag, else the time of the last change and the length, from an answer that is broken off before the file.

    No condition is sent: `If-Modified-Since` would not see an older file that was put back.
    """
    import requests

    try:
        with get(address, {"Accept-Encoding": "identity"}, stream=True, secret=True) as answer:
            if answer.status_code in (408, 425, 429) or answer.status_code >= 500:
                raise UnreachableError(f"the server answered {answer.status_code}")
            answer.raise_for_status()
            said = answer.headers
    except requests.exceptions.SSLError:  # a ConnectionError, but the server was reached
        raise
    except (requests.ConnectionError, requests.Timeout, requests.exceptions.RetryError) as error:
        raise UnreachableError(str(error)) from error
    if "ETag" in said:
        return {"ETag": said["ETag"]}
    names = ("Last-Modified", "Content-Length")
    return {name: said[name] for name in names} if settled(said) and all(name in said for name in names) else {}


def version_in_file_system(address: str) -> dict[str, str]:
    """The same, of a file system."""
    file_system, path = opened(address)
    try:
        said = file_system.info(path)
    except Exception as error:  # each file system has errors of its own for a network that is away
        if is_final(error):
            raise
        raise UnreachableError(str(error)) from error
    if tags := {name: str(said[name]) for name in TAGS if said.get(name) is not None}:
        return tags
    times = {name: str(said[name]) for name in TIMES if said.get(name) is not None}
    return {**times, "size": str(said.get("size"))} if times else {}


def is_final(error: BaseException) -> bool:
    """True for an error that is no matter of the network: no such file, no permission, no credentials."""
    from botocore.exceptions import NoCredentialsError, ParamValidationError, PartialCredentialsError

    of_s3 = (NoCredentialsError, PartialCredentialsError, ParamValidationError)
    return isinstance(error, (FileNotFoundError, PermissionError, IsADirectoryError, ValueError, ImportError, *of_s3))


def opened(address: str) -> tuple[Any, str]:
    """The file system of an address, which remembers nothing, and the path there."""
    import fsspec

    if address.startswith(("s3://", "s3a://")):
        from reseed.store.patient_s3 import PatientS3

        return PatientS3(use_listings_cache=False), PatientS3._strip_protocol(address)
    file_system, path = fsspec.core.url_to_fs(address)
    file_system.invalidate_cache()
    return file_system, path


def keep(address: str, key: str, kind: str, tries: int | None) -> str:
    """Fetch a file into the cache, and return its name there. Raises UnreachableError where it did not come whole."""
    with scratch(key) as folder:
        target = folder / (Path(without_credentials(address).split("?")[0]).name or f"rows{kind}")
        if address.startswith(("http://", "https://")):
            try:
                download(address, target, secret=True, tries=tries)
            except NoRoomError:
                raise
            except ReseedError as error:
                raise UnreachableError(str(error)) from error
        else:
            copy_from(address, target)
        name = f"{file_digest(target)}{kind}"
        os.replace(target, cache_root() / "sources" / name)
    return name


def copy_from(address: str, target: Path) -> None:
    """Copy a file that is the same before and after: s3fs continues a broken one without asking for its version."""
    for _ in range(COPIES):
        before = version_in_file_system(address)
        copy_once(address, target)
        if version_in_file_system(address) == before:
            return
    raise ReseedError(
        f"{without_credentials(address)}: it was changed {COPIES} times while it was read; start again when it is written"
    )


def copy_once(address: str, target: Path) -> None:
    """Copy a file of a file system, through one connection: s3fs then continues where it broke."""
    file_system, path = opened(address)
    options = {"max_concurrency": 1} if address.startswith(("s3://", "s3a://")) else {}
    try:
        file_system.get_file(path, str(target), callback=bar(target.name), **options)
    except Exception as error:
        if is_final(error) or getattr(error, "errno", None) in FULL:
            raise
        raise UnreachableError(str(error)) from error


def bar(name: str) -> Any:
    """fsspec's progress bar; nothing where standard error is no terminal."""
    from fsspec.callbacks import TqdmCallback

    return TqdmCallback(tqdm_kwargs={"desc": name, "unit": "B", "unit_scale": True, "leave": False, "disable": None})


@contextmanager
def scratch(key: str) -> Iterator[Path]:
    """A folder for one fetch. Whoever holds the address's lock is the only one, so what a killed one left is removed."""
    folder = cache_root() / "sources" / f".{key}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
