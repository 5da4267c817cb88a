"""Rows in the store: Parquet that stock tools open, whole files of them never in memory."""

from __future__ import annotations

import json
from pathlib import Path

import pandas
import pytest
from datasets import load_dataset

from reseed.data import rows as rows_module
from reseed.data.rows import Rows, open_rows, rows_of, write_rows
from reseed.data.sources import read_source, resolve_source
from reseed.problems import load_problem
from reseed.records import ReseedError, Row
from reseed.store.artifacts import ArtifactStore

PROBLEM = load_problem("prompt-recovery")
TEXTS = (
    "NA",
    "null",
    "007",
    "1e5",
    "2024-01-01",
    "2024-01-01T00:00:00Z",
    " ",
    "",
    "true",
    'a "b"\r\nc',
    "façade 猫 \u2028",
)


def numbered(count: int) -> list[Row]:
    return [{"id": str(number), "text": f"text {number}"} for number in range(count)]


def test_a_text_that_looks_like_something_else_stays_as_it_is(tmp_path: Path) -> None:
    records = [{"original_text": text, "rewritten_text": text, "rewrite_prompt": "p"} for text in TEXTS]
    pandas.DataFrame(records).to_csv(tmp_path / "rows.csv", index=False)
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    (tmp_path / "rows.json").write_text(json.dumps(records))
    pandas.DataFrame(records).to_parquet(tmp_path / "rows.parquet")
    store = ArtifactStore(str(tmp_path / "store"))
    for kind in ("csv", "jsonl", "json", "parquet"):
        source = resolve_source(str(tmp_path / f"rows.{kind}"), store)
        folder = tmp_path / kind
        folder.mkdir()
        assert write_rows(folder / "rows.parquet", read_source(source, store, PROBLEM)) == len(TEXTS)
        assert tuple(row["original_text"] for row in open_rows(folder)) == TEXTS, kind


def test_stock_libraries_open_them(tmp_path: Path, cache: Path) -> None:
    rows = numbered(2500)
    assert write_rows(tmp_path / "rows.parquet", iter(rows)) == 2500
    assert pandas.read_parquet(tmp_path / "rows.parquet").to_dict("records") == rows
    found = load_dataset("parquet", data_files=str(tmp_path / "rows.parquet"), split="train", cache_dir=str(cache))
    assert found[2499] == rows[2499]
    (tmp_path / "again.parquet").unlink(missing_ok=True)
    write_rows(tmp_path / "again.parquet", rows)
    assert (tmp_path / "again.parquet").read_bytes() == (tmp_path / "rows.parquet").read_bytes()


@pytest.mark.parametrize("in_memory", [True, False])
def test_rows_are_a_sequence(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, in_memory: bool) -> None:
    if not in_memory:
        monkeypatch.setattr(rows_module, "IN_MEMORY", 0)
    rows = numbered(2500)
    write_rows(tmp_path / "rows.parquet", rows)
    (cache / "rows").mkdir()
    found = open_rows(tmp_path)
    assert (len(found), list(found), found[-1], list(found[3:5])) == (2500, rows, rows[-1], rows[3:5])
    assert found.column("id") == [row["id"] for row in rows]
    assert list(found.select([7, 3])) == [rows[7], rows[3]]
    assert len(list((cache / "rows").glob("*.arrow"))) == (0 if in_memory else 1)
    assert bool(found.dataset.cache_files) is not in_memory, "mapped from a file"


def test_what_a_killed_process_unpacked_is_written_over(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows_module, "IN_MEMORY", 0)
    write_rows(tmp_path / "rows.parquet", numbered(3))
    open_rows(tmp_path)
    (whole,) = (cache / "rows").glob("*.arrow")
    whole.rename(whole.with_name(f".{whole.name}"))
    whole.with_name(f".{whole.name}").write_bytes(b"half")
    assert list(open_rows(tmp_path)) == numbered(3)


def test_json_lines_of_an_old_store_are_read(tmp_path: Path) -> None:
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in numbered(3)))
    found = open_rows(tmp_path, "test")
    assert isinstance(found, Rows)
    assert (list(found), found.column("text")) == (numbered(3), ["text 0", "text 1", "text 2"])


def test_rows_of_other_columns_are_refused(tmp_path: Path) -> None:
    rows = [*numbered(1200), {"id": "x", "txt": "a"}]
    with pytest.raises(ReseedError, match=r"row x: its columns are id, txt, and the first row's are id, text; let the"):
        write_rows(tmp_path / "rows.parquet", rows)


def test_no_rows(tmp_path: Path) -> None:
    assert write_rows(tmp_path / "rows.parquet", []) == 0
    assert (list(open_rows(tmp_path)), open_rows(tmp_path).column("text")) == ([], [])
    assert (len(rows_of([])), rows_of([]).column("id")) == (0, [])
