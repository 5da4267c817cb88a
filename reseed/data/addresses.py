"""Files at an address: fetched into the cache once, and again when the server says that they have changed.

The cache keeps a file under the SHA-256 of its content, so a file that was planned with stays while another comes.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from reseed.credentials import unsigned, without_credentials, without_secrets
from reseed.data.readers import kind_of
from reseed.files import cache_root, digest, file_digest, locked, writable, write_atomically
from reseed.models.downloads import download, get
from reseed.records import ReseedError

# What file systems call a file's version.
VERSIONS = ("ETag", "etag", "blob_id", "LastModified", "last_modified", "mtime", "md5Hash", "content_md5")


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
    """Nobody answers; what was fetched before may do."""


def fetch(address: str) -> tuple[Path, str]:
    """The file at an address as it is now, and a note where that is not known. `s3://` and whatever fsspec knows will do.

    A server that does not say when its file changed is asked for the whole file each time. Where nobody answers, what was
    fetched before is taken. Raises ReseedError, without the address's credentials.
    """
    shown, kind = without_credentials(address), kind_of(without_credentials(address))
    writable(cache_root() / "sources", "set RESEED_CACHE to a folder that you can write to; sources are kept there")
    key = digest(unsigned(address))
    entry = cache_root() / "sources" / f"{key}.json"
    with locked(cache_root() / "locks" / f"{key}.lock"):
        known = read_entry(entry)
        try:
            version = version_of(address, known)
            if known is None or not version or version != known.version:
                known = Fetched(keep(address, key, kind), version)
                write_atomically(entry, json.dumps(asdict(known)).encode())
        except UnreachableError as error:
            if known is None:
                raise unfetched(shown, address, error) from None
            return known.path, f"{shown}: cannot be reached; taken as it was when it was last fetched"
        except ReseedError as error:
            raise ReseedError(f"data.train: {error}") from None
        except Exception as error:
            raise unfetched(shown, address, error) from (error if shown == address else None)
    return known.path, ""


def unfetched(shown: str, address: str, error: Exception) -> ReseedError:
    """Why an address cannot be read."""
    reason = without_secrets(str(error)).replace(address, shown)
    return ReseedError(
        f"data.train: cannot fetch {shown} ({type(error.__cause__ or error).__name__}: {reason}); check the address "
        "and the network, or download it and give its path with --set data.train=PATH"
    )


def read_entry(entry: Path) -> Fetched | None:
    """What is in the cache of an address; nothing where it is not what was fetched."""
    try:
        found = Fetched(**json.loads(entry.read_text()))
        return found if file_digest(found.path) == found.path.stem else None
    except (OSError, ValueError, TypeError):
        return None


def version_of(address: str, known: Fetched | None) -> dict[str, str]:
    """What the server says of the file's version; empty where it says nothing."""
    if not address.startswith(("http://", "https://")):
        return version_of_other(address)
    before = known.version if known else {}
    for pause in (0.5, 1.0):  # seconds after a try that brought nothing
        with suppress(UnreachableError):
            return asked_for(address, before)
        time.sleep(pause)
    return asked_for(address, before)


def asked_for(address: str, before: dict[str, str]) -> dict[str, str]:
    """What a web server says of the version, without the file."""
    import requests

    names = {"ETag": "If-None-Match", "Last-Modified": "If-Modified-Since"}
    asked = {names[name]: value for name, value in before.items()}
    try:
        with get(address, {"Accept-Encoding": "identity", **asked}, stream=True, retries=0) as answer:
            if answer.status_code == 304:
                return before
            answer.raise_for_status()
            return {name: answer.headers[name] for name in names if name in answer.headers}
    except (
        requests.ConnectionError,
        requests.Timeout,
        requests.exceptions.RetryError,
    ) as error:  # also 500, 502, 503, 504
        raise UnreachableError(str(error)) from error


def version_of_other(address: str) -> dict[str, str]:
    """The same, of a file system."""
    file_system, path = opened(address)
    try:
        said = file_system.info(path)
    except (FileNotFoundError, PermissionError):
        raise
    except Exception as error:  # each file system has errors of its own for a network that is away
        raise UnreachableError(str(error)) from error
    return {name: str(said[name]) for name in VERSIONS if said.get(name) is not None}


def opened(address: str) -> tuple[Any, str]:
    """The file system of an address, which remembers nothing, and the path there."""
    import fsspec

    file_system, path = fsspec.core.url_to_fs(address)
    file_system.invalidate_cache()
    return file_system, path


def keep(address: str, key: str, kind: str) -> str:
    """Fetch a file into the cache, and return its name there."""
    with scratch(key) as folder:
        target = folder / (Path(without_credentials(address).split("?")[0]).name or f"rows{kind}")
        if address.startswith(("http://", "https://")):
            download(address, target, secret=True)
        else:
            file_system, path = opened(address)
            file_system.get_file(path, str(target), callback=bar(target.name))
        name = f"{file_digest(target)}{kind}"
        os.replace(target, cache_root() / "sources" / name)
    return name


def bar(name: str) -> Any:
    """fsspec's progress bar."""
    from fsspec.callbacks import TqdmCallback

    return TqdmCallback(tqdm_kwargs={"desc": name, "unit": "B", "unit_scale": True, "leave": False})


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
