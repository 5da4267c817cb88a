"""The records of one local file, a few at a time.

CSV and JSON are read by Python's own strict parsers: what stock `datasets` makes of them (through pandas and pyarrow) is no
longer the file's text: `NA` becomes nothing, `007` a 7, `2024-01-01` in JSON Lines a time stamp, and where every row has one
field too many, the first goes.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from reseed.records import ReseedError

Record = Mapping[str, Any]
FILE_KINDS = (".csv", ".parquet", ".jsonl", ".json")
UNREADABLE = (csv.Error, ValueError, OSError, RecursionError, OverflowError)  # pyarrow's and json's are ValueErrors
BATCH = 1000  # rows of a Parquet file decoded at once


def kind_of(name: str) -> str:
    """The ending of a file's name, without what an address says behind `?`. Raises ReseedError for one that is not read."""
    suffix = Path(name.split("?")[0]).suffix.lower()
    if suffix not in FILE_KINDS:
        raise ReseedError(f"{name}: files ending in {suffix or 'nothing'} are not read; wanted {', '.join(FILE_KINDS)}")
    return suffix


def read_records(path: Path, shown: str) -> Iterator[Record]:
    """The records of a CSV, Parquet, JSON Lines or JSON file. Raises ReseedError about `shown` where it cannot go on."""
    kind = kind_of(path.name)
    try:
        yield from READERS[kind](path)
    except UnicodeDecodeError as error:
        raise ReseedError(f"{shown}: is not UTF-8 text ({error}); save it as {kind[1:]} in UTF-8") from error
    except UNREADABLE as error:
        raise ReseedError(f"{shown}: cannot be read as {kind[1:]}: {error}; mend the file, or its extension") from error


def read_csv(path: Path) -> Iterator[Record]:
    """The records of a CSV file, with or without a byte order mark. A row with more fields than columns is an error."""
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    with path.open(encoding="utf-8-sig", newline="") as file:
        table = csv.DictReader(file, strict=True)
        header = list(table.fieldnames or [])
        if twice := sorted({name for name in header if header.count(name) > 1}):  # DictReader would keep the last
            raise ValueError(f"the header names the column '{twice[0]}' twice")
        for number, record in enumerate(table, start=1):
            if None in record:  # where DictReader puts fields that no column claims
                other = next((sign for sign in (";", "\t") if sign in header[0]), None) if header else None
                apart = (
                    f"; is it separated by {'semicolons' if other == ';' else 'tabs'}? save it with commas"
                    if other
                    else ""
                )
                raise ValueError(
                    f"row {number} has more fields than the header{apart or '; quote fields that hold a comma'}"
                )
            yield record


def read_json_lines(path: Path) -> Iterator[Record]:
    """One object a line; empty lines are passed over."""
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                try:
                    yield checked(json.loads(line))
                except ValueError as error:
                    raise ValueError(f"line {number}: {error}") from error


def read_json(path: Path) -> Iterator[Record]:
    """A list of objects."""
    records = json.loads(path.read_text(encoding="utf-8-sig"))
    yield from map(checked, records if isinstance(records, list) else [None])


def checked(record: object) -> Record:
    """The record, which must be an object."""
    if not isinstance(record, dict):
        raise ValueError("wanted a list of objects, each of them a row")
    return record


def read_parquet(path: Path) -> Iterator[Record]:
    """The rows of a Parquet file."""
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(path) as file:
        for batch in file.iter_batches(BATCH):
            yield from batch.to_pylist()


READERS = {".csv": read_csv, ".jsonl": read_json_lines, ".json": read_json, ".parquet": read_parquet}
