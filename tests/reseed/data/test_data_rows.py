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
    (cache / "rows").mkdir(parents=True)
    found = open_rows(tmp_path)
    assert (list(found[2500:]), list(found[2400:9000]), list(found[9000:9001])) == ([], rows[2400:], [])
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
    whole.with_name(f".{whole.name}").write_bytes(b"half")
    whole.write_bytes(whole.read_bytes()[:-100])
    assert list(open_rows(tmp_path)) == numbered(3), "also where it was cut off later"
    assert [path.name for path in (cache / "rows").glob(".*")] == []


def test_how_rows_are_opened_is_decided_by_what_they_take(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hundred equal rows are as small as one in the file."""
    monkeypatch.setattr(rows_module, "IN_MEMORY", 300_000)
    for count, files in ((100, 0), (1000, 1)):
        write_rows(tmp_path / "rows.parquet", [{"id": "x", "text": "the same " * 200}] * count)
        assert (tmp_path / "rows.parquet").stat().st_size < 20_000
        assert len(open_rows(tmp_path)) == count
        assert len(list((cache / "rows").glob("*.arrow"))) == files


def test_json_lines_of_an_old_store_are_read(tmp_path: Path) -> None:
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in numbered(3)))
    found = open_rows(tmp_path, "test")
    assert isinstance(found, Rows)
    assert (list(found), found.column("text")) == (numbered(3), ["text 0", "text 1", "text 2"])
    (tmp_path / "more.jsonl").write_text('{"id": "1"}\n{"id": "2", "text": "a"}\n')
    assert list(open_rows(tmp_path, "more")) == [{"id": "1", "text": ""}, {"id": "2", "text": "a"}]


def test_half_of_a_character_is_told(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(
        '{"original_text": "\\ud83d cut", "rewritten_text": "a", "rewrite_prompt": "b"}\n'
    )
    store = ArtifactStore(str(tmp_path / "store"))
    with pytest.raises(
        ReseedError, match=r"rows.jsonl: a text that is no Unicode \(.*surrogates not allowed\).*mend that row"
    ):
        list(read_source(resolve_source(str(tmp_path / "rows.jsonl"), store), store, PROBLEM))


def test_rows_of_other_columns_are_refused(tmp_path: Path) -> None:
    rows = [*numbered(1200), {"id": "x", "txt": "a"}]
    with pytest.raises(
        ReseedError, match=r"row y: its label is int 3; wanted a text: let the problem give every column"
    ):
        write_rows(tmp_path / "rows.parquet", [{"id": "y", "label": 3}])  # type: ignore[dict-item]
    with pytest.raises(ReseedError, match=r"row x: its columns are id, txt, and the first row's are id, text; let the"):
        write_rows(tmp_path / "rows.parquet", rows)


def test_no_rows(tmp_path: Path) -> None:
    assert write_rows(tmp_path / "rows.parquet", []) == 0
    assert (list(open_rows(tmp_path)), open_rows(tmp_path).column("text")) == ([], [])
    assert (len(rows_of([])), rows_of([]).column("id")) == (0, [])
