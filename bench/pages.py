"""A benchmark's tables, put into a page of the docs."""

from __future__ import annotations

from pathlib import Path


def write(path: Path, text: str, name: str) -> None:
    """Put the text between the page's marks of that name."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    before, found, rest = path.read_text(encoding="utf-8").partition(begin)
    _, ended, after = rest.partition(end)
    if not (found and ended):
        raise SystemExit(f"{path}: no lines {begin} and {end}; add them where the tables shall stand")
    path.write_text(f"{before}{begin}\n\n{text}\n\n{end}{after}", encoding="utf-8")
