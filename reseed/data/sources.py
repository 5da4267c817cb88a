"""Where rows come from: a file, a URL, a hub dataset, a dataset version in the store, or passages × prompts."""

from __future__ import annotations

import csv
import json
import math
import random
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reseed.credentials import unsigned, without_credentials, without_secrets
from reseed.files import digest, file_digest, read_jsonl
from reseed.mistakes import nearest
from reseed.problems import Problem
from reseed.records import Artifact, ReseedError, Row
from reseed.settings import RECIPES, GenerationSettings
from reseed.store.artifacts import ArtifactStore

DATASET = "dataset"
FILE_KINDS = (".csv", ".parquet", ".jsonl", ".json")


@dataclass(frozen=True)
class Source:
    """What a recipe's `data.train` means on this day, resolved once: `content` is a digest or an immutable key.

    `given` may be shown and stored. `address`, where the rows are, may hold credentials, and is for opening alone.
    """

    given: str
    content: str
    artifact: Artifact | None = None
    address: str = field(default="", repr=False)


def resolve_source(given: str, store: ArtifactStore) -> Source:
    """Find out what `data.train` names: `name@ref` in the store, an existing path, a URL, else a hub id."""
    if re.fullmatch(r"[a-z0-9][a-z0-9._-]*@[A-Za-z0-9._-]+", given):
        name, _, ref = given.partition("@")
        found = store.ref(DATASET, name, ref)
        if found is None:
            there = sorted(store.refs(DATASET, name))
            raise ReseedError(
                f"data.train: the store {store.url} has no dataset {given}"
                + (f"; of '{name}' it has {', '.join(there)}" if there else "; `reseed data list` shows what it has")
            )
        return Source(given, found.artifact.key, found.artifact)
    if given.startswith(("http://", "https://", "s3://", "hf://")) or is_hub_id(given):
        # a remote source is pinned by its name: give a revision or a commit in it
        return Source(without_credentials(given), unsigned(given), address=given)
    path = Path(given).expanduser()
    if not path.is_file():
        raise ReseedError(
            f"data.train: no file '{without_credentials(given)}'; give a path from {Path.cwd()}, name@ref, a URL or a hub id"
        )
    return Source(given, file_digest(path), address=given)


def is_hub_id(given: str) -> bool:
    """`owner/name`, with nothing of that path here and no file's ending."""
    return (
        bool(re.fullmatch(r"[\w.-]+/[\w.-]+", given))
        and not Path(given).exists()
        and not given.lower().endswith(FILE_KINDS)
    )


def read_source(
    source: Source, store: ArtifactStore, problem: Problem, columns: Mapping[str, str] | None = None
) -> list[Row]:
    """The rows of a resolved source, each with its content's digest as id."""
    if source.artifact is not None:
        rows = [dict(row) for row in read_jsonl(store.fetch(source.artifact) / "rows.jsonl")]
        check_columns(rows, problem, source.given)
        return rows
    check_unchanged(source)
    return as_rows(read_table(source.address), problem, source.given, columns)


def check_unchanged(source: Source) -> None:
    """Refuse a file that is no longer what was planned: its rows would be filed under the key of others."""
    path = Path(source.address).expanduser()
    if "://" not in source.address and path.is_file() and file_digest(path) != source.content:
        raise ReseedError(
            f"data.train: {source.given} was changed after this run was planned; wanted the file that the plan read: "
            "start the same command again to take it as it is now"
        )


def as_rows(
    records: Sequence[Mapping[str, Any]], problem: Problem, where: str, columns: Mapping[str, str] | None = None
) -> list[Row]:
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
    renamed = [record | {own: record.get(given) for own, given in wanted.items()} for record in map(dict, records)]
    for given in wanted.values():
        if records and given not in records[0]:
            raise ReseedError(
                f"{where}: no column '{given}', which data.columns asks for{nearest(given, [str(c) for c in records[0]])}; "
                "data.columns=null takes the columns as they are"
            )
    check_columns(renamed, problem, where)
    rows = []
    for record in renamed:
        values = {column: "" if record.get(column) is None else str(record[column]) for column in problem.columns}
        rows.append({"id": digest(values, 16), **values})
    return rows


def check_columns(records: Sequence[Mapping[str, Any]], problem: Problem, where: str) -> None:
    """Refuse a source without rows, or without a column that the problem needs."""
    if not records:
        raise ReseedError(f"{where}: holds no row; wanted rows with {', '.join(problem.columns)}")
    missing = [column for column in problem.columns if column not in records[0]]
    if missing:
        seen = [str(column) for column in records[0] if column is not None]  # None: fields that no column claims
        apart = "; is it separated by semicolons? save it with commas" if any(";" in column for column in seen) else ""
        lacking = ", ".join(f"'{column}'{nearest(column, seen)}" for column in missing)
        raise ReseedError(
            f"{where}: no column {lacking}; {problem.name} needs {', '.join(problem.columns)}, "
            f"and the file has {', '.join(seen)}{apart}"
        )


def read_table(address: str) -> list[dict[str, Any]]:
    """The records of a CSV, Parquet, JSON Lines or JSON file, a URL of one, or a hub dataset's train split."""
    if is_hub_id(address):
        return read_hub(address)
    given = without_credentials(address)
    suffix = Path(given.split("?")[0]).suffix.lower()
    if suffix not in FILE_KINDS:
        raise ReseedError(
            f"{given}: files ending in {suffix or 'nothing'} are not read; wanted {', '.join(FILE_KINDS)}"
        )
    path = fetch_file(address)
    try:
        return read_file(path, suffix)
    except UnicodeDecodeError as error:
        raise ReseedError(f"{given}: is not UTF-8 text ({error}); save it as {suffix[1:]} in UTF-8") from error
    except (csv.Error, ValueError, OSError) as error:  # pyarrow's and json's errors are ValueErrors
        raise ReseedError(f"{given}: cannot be read as {suffix[1:]}: {error}; mend the file, or its ending") from error


def fetch_file(given: str) -> Path:
    """The local file itself, or a URL's content in fsspec's cache."""
    if "://" not in given:
        return Path(given).expanduser()
    import fsspec

    shown = without_credentials(given)
    try:
        with fsspec.open(f"simplecache::{given}", "rb") as file:  # open_local would read `?` as a wildcard
            return Path(file.name)
    except Exception as error:
        raise ReseedError(
            f"data.train: cannot fetch {shown} ({type(error).__name__}: {without_secrets(str(error))}); check the address "
            "and the network, or download it and give its path with --set data.train=PATH"
        ) from (error if shown == given else None)  # its own message holds the address


def read_file(path: Path, suffix: str) -> list[dict[str, Any]]:
    """Records of one local file."""
    if suffix == ".parquet":
        import pyarrow.parquet

        return list(pyarrow.parquet.read_table(path).to_pylist())
    if suffix == ".csv":
        return read_csv(path)
    records = read_jsonl(path) if suffix == ".jsonl" else json.loads(path.read_text(encoding="utf-8-sig"))
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise ValueError("wanted a list of objects, each of them a row")
    return records


def read_csv(path: Path) -> list[dict[str, Any]]:
    """The records of a CSV file, with or without a byte order mark. A row with more fields than columns is an error."""
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    with path.open(encoding="utf-8-sig", newline="") as file:
        records = list(csv.DictReader(file, strict=True))
    for number, record in enumerate(records, start=1):
        if None in record:  # where DictReader puts fields that no column claims
            raise ValueError(f"row {number} has more fields than the header; quote fields that hold a comma")
    return records


def read_hub(given: str) -> list[dict[str, Any]]:
    """The train split of a dataset on the hub."""
    from datasets import load_dataset

    try:
        return [dict(record) for record in load_dataset(given, split="train")]
    except Exception as error:
        raise ReseedError(
            f"data.train: no file '{given}' here, and the hub did not give a dataset of that name "
            f"({type(error).__name__}); check the name and the network, or give a path"
        ) from error


@dataclass(frozen=True)
class Pair:
    """A passage that a generator shall rewrite as a prompt says."""

    id: str
    source: str
    instruction: str


def seed_texts(settings: GenerationSettings) -> tuple[list[str], list[str]]:
    """The passages and the prompts, one a line, blank lines between them ignored."""
    return read_lines(settings.passages, "generation.passages"), read_lines(settings.prompts, "generation.prompts")


def read_lines(given: str, key: str) -> list[str]:
    """The lines of a text file that say something; a shipped file is found beside the recipes."""
    path = next((p for p in (Path(given), RECIPES / given) if p.is_file()), None)
    if path is None:
        raise ReseedError(f"{key}: no file '{given}' here or in {RECIPES.name}/")
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except UnicodeDecodeError as error:
        raise ReseedError(f"{key}: '{given}' is not UTF-8 text ({error}); save it in UTF-8, one text a line") from error
    return list(dict.fromkeys(line for line in lines if line))


def draw_pairs(settings: GenerationSettings) -> list[Pair]:
    """`rows` different pairs: every prompt about equally often, every passage about equally often."""
    passages, prompts = seed_texts(settings)
    if settings.rows > len(passages) * len(prompts):
        raise ReseedError(
            f"generation.rows: {settings.rows} pairs were asked for, {len(passages)} passages × {len(prompts)} prompts "
            f"make {len(passages) * len(prompts)}"
        )
    generator = random.Random(settings.seed)
    generator.shuffle(prompts)
    generator.shuffle(passages)
    turn = math.lcm(len(passages), len(prompts))  # both lists repeat together; a step aside makes the pairs new again
    chosen = [
        (passages[(index + index // turn) % len(passages)], prompts[index % len(prompts)])
        for index in range(settings.rows)
    ]
    return [Pair(digest(pair, 16), *pair) for pair in chosen]
