"""Rows as the store keeps them: Parquet files, which stock `datasets`, pandas, Polars and DuckDB open, read without taking
memory for all of them. Stores written before that hold JSON Lines, and are read as well."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, overload

from reseed.files import cache_root, digest, file_digest, locked, read_jsonl, writable
from reseed.records import ReseedError, Row

BATCH = 4096  # rows written, or made into dicts, at once
IN_MEMORY = 64 * 2**20  # bytes of rows; more are unpacked into the cache once, and mapped into memory
BYTES = b"reseed.bytes"  # where a file says how many its rows take in memory: compressed they may take a hundredth


class Rows(Sequence[Row]):
    """Rows, each of which becomes a dict when it is asked for. `dataset` is a `datasets.Dataset` of text columns."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    @overload
    def __getitem__(self, place: int) -> Row: ...
    @overload
    def __getitem__(self, place: slice) -> Rows: ...
    def __getitem__(self, place: int | slice) -> Row | Rows:
        if isinstance(place, slice):
            return self.select(range(len(self))[place])
        return dict(self.dataset[range(len(self))[place]])

    def __iter__(self) -> Iterator[Row]:
        for batch in self.dataset.with_format("arrow").iter(BATCH):
            yield from batch.to_pylist()

    @property
    def columns(self) -> list[str]:
        """The columns' names."""
        return list(self.dataset.column_names)

    def column(self, name: str) -> list[str]:
        """One value a row."""
        if not len(self):
            return []
        batches = self.dataset.select_columns([name]).with_format("arrow").iter(BATCH)
        return [value for batch in batches for value in batch.column(0).to_pylist()]

    def select(self, places: Sequence[int]) -> Rows:
        """The rows at these places, in this order."""
        return Rows(self.dataset.select(places if len(places) else []))


def rows_of(rows: Iterable[Row]) -> Rows:
    """Rows that are in memory."""
    from datasets import Dataset

    return Rows(Dataset.from_list(list(rows)))


def open_rows(folder: Path, name: str = "rows") -> Rows:
    """The rows `name` of an artifact's folder."""
    import pyarrow.parquet
    from datasets import Dataset

    path = folder / f"{name}.parquet"
    if not path.is_file():
        return rows_of(same_columns(read_jsonl(folder / f"{name}.jsonl")))
    said = pyarrow.parquet.read_metadata(path).metadata or {}
    if int(said.get(BYTES, IN_MEMORY + 1)) > IN_MEMORY:
        return Rows(Dataset.from_file(str(unpacked(path))))
    table = pyarrow.parquet.read_table(path, partitioning=None).combine_chunks()
    return Rows(Dataset(table, fingerprint=digest(str(path))))  # else `datasets` pickles the table to make one


def same_columns(rows: list[Row]) -> list[Row]:
    """Rows of JSON Lines, of which some may lack a column, with the empty text in its place."""
    columns = dict.fromkeys(column for row in rows for column in row)
    return [{column: row.get(column, "") for column in columns} for row in rows]


def unpacked(path: Path) -> Path:
    """A Parquet file's rows as an Arrow file of the cache, which can be mapped into memory."""
    key = file_digest(path)[:32]
    target = cache_root() / "rows" / f"{key}.arrow"
    if is_whole(target):
        return target
    writable(target.parent, "set RESEED_CACHE to a folder that you can write to; many rows are unpacked there")
    with locked(cache_root() / "locks" / f"{key}.lock"):
        if not is_whole(target):
            unpack(path, target)
    return target


def unpack(path: Path, target: Path) -> None:
    """Write a Parquet file's rows as an Arrow file, whole or not at all, and beside it how large that is."""
    import pyarrow
    import pyarrow.parquet

    beside = target.with_name(f".{target.name}")  # what a killed holder of the lock left is written over
    try:
        file = pyarrow.parquet.ParquetFile(path)
        with file, pyarrow.ipc.new_stream(str(beside), file.schema_arrow) as stream:
            for batch in file.iter_batches(BATCH):
                stream.write_batch(batch)
        target.with_suffix(".size").write_text(str(beside.stat().st_size))
        os.replace(beside, target)
    except OSError as error:
        raise ReseedError(f"{path.name}: cannot be unpacked into {target.parent}: {error.strerror or error}") from error
    finally:
        beside.unlink(missing_ok=True)


def is_whole(target: Path) -> bool:
    """True for an unpacked file of the size that it was written with."""
    try:
        return target.stat().st_size == int(target.with_suffix(".size").read_text())
    except (OSError, ValueError):
        return False


def write_rows(path: Path, rows: Iterable[Row]) -> int:
    """Write rows of the same text columns as Parquet, a batch at a time, and return how many there were.

    Equal rows give equal bytes. Raises ReseedError for a row that has other columns than the first.
    """
    import pyarrow
    import pyarrow.parquet

    left = iter(rows)
    some = list(islice(left, BATCH))
    columns = sorted(some[0]) if some else ["id"]
    schema, count, size = pyarrow.schema([(column, pyarrow.string()) for column in columns]), 0, 0
    with pyarrow.parquet.ParquetWriter(path, schema) as file:
        while some:
            check_alike(some, columns)
            table = pyarrow.Table.from_pylist(some, schema)
            file.write_table(table)
            count, size = count + len(some), size + table.nbytes
            some = list(islice(left, BATCH))
        file.add_key_value_metadata({BYTES: str(size)})
    return count


def check_alike(rows: Iterable[Row], columns: list[str]) -> None:
    """Refuse a row with other columns than the first row's, which Parquet would drop, or with a value that is no text."""
    wanted = set(columns)
    for row in rows:
        for column, value in row.items():
            if not isinstance(value, str):
                raise ReseedError(
                    f"row {row.get('id', '')}: its {column} is {type(value).__name__} {value!r:.60}; wanted a text: let the "
                    "problem give every column as text"
                )
        if row.keys() != wanted:
            raise ReseedError(
                f"row {row.get('id', '')}: its columns are {', '.join(sorted(row))}, and the first row's are "
                f"{', '.join(columns)}; let the problem give every row the same columns"
            )
