"""Rows as the store keeps them: Parquet files, which stock `datasets`, pandas, Polars and DuckDB open, read without taking
memory for all of them. Stores written before that hold JSON Lines, and are read as well."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, overload

from reseed.files import cache_root, file_digest, locked, read_jsonl
from reseed.records import ReseedError, Row

BATCH = 1000  # rows written, or made into dicts, at once
IN_MEMORY = 32 * 2**20  # bytes of a Parquet file; a larger one is unpacked into the cache once, and mapped into memory


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
        return dict(self.dataset[place])

    def __iter__(self) -> Iterator[Row]:
        for batch in self.dataset.with_format("arrow").iter(BATCH):
            yield from batch.to_pylist()

    @property
    def columns(self) -> list[str]:
        """The columns' names."""
        return list(self.dataset.column_names)

    def column(self, name: str) -> list[str]:
        """One value a row."""
        return list(self.dataset[name]) if len(self) else []

    def select(self, places: Sequence[int]) -> Rows:
        """The rows at these places, in this order."""
        return Rows(self.dataset.select(places))


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
        return rows_of(read_jsonl(folder / f"{name}.jsonl"))
    if path.stat().st_size > IN_MEMORY:
        return Rows(Dataset.from_file(str(unpacked(path))))
    return Rows(Dataset(pyarrow.parquet.read_table(path, partitioning=None)))


def unpacked(path: Path) -> Path:
    """A Parquet file's rows as an Arrow file of the cache, which can be mapped into memory."""
    import pyarrow
    import pyarrow.parquet

    key = file_digest(path)[:32]
    target = cache_root() / "rows" / f"{key}.arrow"
    with locked(cache_root() / "locks" / f"{key}.lock"):
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            file = pyarrow.parquet.ParquetFile(path)
            beside = target.with_name(f".{target.name}")  # what a killed holder of the lock left is written over
            with pyarrow.ipc.new_stream(str(beside), file.schema_arrow) as stream:
                for batch in file.iter_batches(BATCH):
                    stream.write_batch(batch)
            os.replace(beside, target)
    return target


def write_rows(path: Path, rows: Iterable[Row]) -> int:
    """Write rows of the same text columns as Parquet, a batch at a time, and return how many there were.

    Equal rows give equal bytes. Raises ReseedError for a row that has other columns than the first.
    """
    import pyarrow
    import pyarrow.parquet

    left = iter(rows)
    some = list(islice(left, BATCH))
    columns = sorted(some[0]) if some else ["id"]
    schema, count = pyarrow.schema([(column, pyarrow.string()) for column in columns]), 0
    with pyarrow.parquet.ParquetWriter(path, schema) as file:
        while some:
            check_alike(some, columns)
            file.write_table(pyarrow.Table.from_pylist(some, schema))
            count += len(some)
            some = list(islice(left, BATCH))
    return count


def check_alike(rows: Iterable[Row], columns: list[str]) -> None:
    """Refuse a row with other columns than the first row's: Parquet would drop them, or make up empty ones."""
    wanted = set(columns)
    for row in rows:
        if row.keys() != wanted:
            raise ReseedError(
                f"row {row.get('id', '')}: its columns are {', '.join(sorted(row))}, and the first row's are "
                f"{', '.join(columns)}; let the problem give every row the same columns"
            )
