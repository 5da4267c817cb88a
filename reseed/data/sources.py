"""Where rows come from: files, an address, a hub dataset, or a dataset version in the store."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from reseed.credentials import without_credentials
from reseed.data.addresses import fetch
from reseed.data.hub import HubSplit, find_split, is_hub_id, read_split
from reseed.data.readers import Record, kind_of, read_records
from reseed.data.rows import open_rows
from reseed.files import digest, file_digest
from reseed.mistakes import nearest
from reseed.problems import Problem
from reseed.records import Artifact, ReseedError, Row
from reseed.store.artifacts import ArtifactStore

DATASET = "dataset"


@dataclass(frozen=True)
class Source:
    """What a recipe's `data.train` means on this day, resolved once: `content` is a digest or an immutable key.

    `given` may be shown and stored. `note` is what is doubtful about it.
    """

    given: str
    content: str
    artifact: Artifact | None = None
    files: tuple[Path, ...] = field(default=(), repr=False)
    hub: HubSplit | None = None
    note: str = ""

    def shown_files(self) -> list[tuple[Path, str]]:
        """The files, each with what it is called in a message."""
        return [(path, self.given if len(self.files) == 1 else str(path)) for path in self.files]


def resolve_source(given: str, store: ArtifactStore, config: str | None = None, split: str = "train") -> Source:
    """Find out what `data.train` names: `name@ref` in the store, files here (`*` and `**` stand for any), an address, whose
    file is fetched, else a hub id."""
    if is_hub_id(given):
        hub = find_split(given, config, split)
        return Source(given, hub.content, hub=hub)
    shown = without_credentials(given)
    if config is not None or split != "train":
        raise ReseedError(
            f"data.train: {shown} is no hub dataset, so it has no data.config and data.split; leave them out"
        )
    if re.fullmatch(r"[a-z0-9][a-z0-9._-]*@[A-Za-z0-9._-]+", given):
        artifact = find_version(given, store)
        return Source(given, artifact.key, artifact)
    if "://" in given:
        path, note = fetch(given)
        return Source(shown, path.stem, files=(path,), note=note)
    files = find_files(given)
    return Source(given, content_of(files), files=files)


def find_version(given: str, store: ArtifactStore) -> Artifact:
    """The dataset version in the store that `name@ref` names now."""
    name, _, ref = given.partition("@")
    found = store.ref(DATASET, name, ref)
    if found is None:
        there = sorted(store.refs(DATASET, name))
        raise ReseedError(
            f"data.train: the store {store.url} has no dataset {given}"
            + (f"; of '{name}' it has {', '.join(there)}" if there else "; `reseed data list` shows what it has")
        )
    return found.artifact


def find_files(given: str) -> tuple[Path, ...]:
    """One file, or those that fit a pattern, in the order of their names."""
    path = Path(given).expanduser()
    if path.is_file():
        kind_of(given)
        return (path,)
    if path.is_dir():
        raise ReseedError(f"data.train: '{given}' is a folder; name its files, as in {given.rstrip('/')}/*.csv")
    found = sorted(Path(name) for name in glob.glob(str(path), recursive=True) if Path(name).is_file())
    if not found:
        raise ReseedError(
            f"data.train: no file '{without_credentials(given)}'; give a path from {Path.cwd()}, name@ref, a URL or a hub id"
        )
    for one in found:
        kind_of(str(one))
    return tuple(found)


def content_of(files: Sequence[Path]) -> str:
    """The digest of one file, or of several in their order; their names do not count."""
    sums = [file_digest(path) for path in files]
    return sums[0] if len(sums) == 1 else digest(sums, 64)


def read_source(
    source: Source, store: ArtifactStore, problem: Problem, columns: Mapping[str, str] | None = None
) -> Iterator[Row]:
    """The rows of a resolved source, each with its content's digest as id."""
    if source.artifact is not None:
        rows = open_rows(store.fetch(source.artifact))
        check_columns(rows[0] if len(rows) else None, problem, source.given)
        return iter(rows)
    if source.hub is not None:
        return as_rows(read_split(source.hub), problem, source.given, columns)
    check_unchanged(source)
    return chain.from_iterable(
        as_rows(read_records(path, name), problem, name, columns) for path, name in source.shown_files()
    )


def check_unchanged(source: Source) -> None:
    """Refuse files that are no longer what was planned: their rows would be filed under the key of others."""
    gone = [path for path in source.files if not path.is_file()]
    if gone or content_of(source.files) != source.content:
        raise ReseedError(
            f"data.train: {source.given} was {'removed' if gone else 'changed'} after this run was planned; wanted the file "
            "that the plan read: start the same command again to take it as it is now"
        )


def as_rows(
    records: Iterable[Record], problem: Problem, where: str, columns: Mapping[str, str] | None = None
) -> Iterator[Row]:
    """The problem's columns of every record as text. A missing column is an error, a missing value an empty text.

    `columns` names the source's column for a column of the problem's, where they differ.
    """
    wanted = columns or {}
    for own in wanted:
        if own not in problem.columns:  # else the file's own column of that name would be taken without a word
            raise ReseedError(
                f"data.columns: {problem.name} has no column '{own}'{nearest(own, list(problem.columns))}; "
                f"it has {', '.join(problem.columns)}"
            )
    left = iter(records)
    first = next(left, None)
    for given in wanted.values():
        if first is not None and given not in first:
            raise ReseedError(
                f"{where}: no column '{given}', which data.columns asks for{nearest(given, [str(c) for c in first])}; "
                "data.columns=null takes the columns as they are"
            )
    check_columns({**first, **dict.fromkeys(wanted)} if first is not None else None, problem, where)
    assert first is not None
    places = {column: wanted.get(column, column) for column in problem.columns}
    return (row_of(record, places, where) for record in chain([first], left))


def row_of(record: Record, places: Mapping[str, str], where: str) -> Row:
    """A record's columns as text, and the row's id."""
    try:
        values = {column: text_of(record.get(place)) for column, place in places.items()}
    except UnicodeDecodeError as error:
        raise ReseedError(f"{where}: bytes that are no UTF-8 text ({error}); mend that row, or store text") from error
    try:
        return {"id": digest(values, 16), **values}
    except UnicodeEncodeError as error:  # half of a character beyond U+FFFF, as JSON can hold
        raise ReseedError(
            f"{where}: a text that is no Unicode ({error}): “{str(values)[:80]!a}”; mend that row"
        ) from error


def text_of(value: Any) -> str:
    """A value as text; none is the empty text. Some writers of Parquet store text as bytes."""
    if isinstance(value, bytes):
        return value.decode()
    return "" if value is None else str(value)


def check_columns(first: Record | None, problem: Problem, where: str) -> None:
    """Refuse a source without a first row, or without a column that the problem needs."""
    if first is None:
        raise ReseedError(f"{where}: holds no row; wanted rows with {', '.join(problem.columns)}")
    missing = [column for column in problem.columns if column not in first]
    if missing:
        seen = [str(column) for column in first if column is not None]  # None: fields that no column claims
        apart = "; is it separated by semicolons? save it with commas" if any(";" in column for column in seen) else ""
        lacking = ", ".join(f"'{column}'{nearest(column, seen)}" for column in missing)
        raise ReseedError(
            f"{where}: no column {lacking}; {problem.name} needs {', '.join(problem.columns)}, "
            f"and the file has {', '.join(seen)}{apart}"
        )
