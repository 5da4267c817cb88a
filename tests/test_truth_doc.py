"""docs/truth.md: its example prints what it shows, and its rates are those that were measured."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"
TRUTH = (DOCS / "truth.md").read_text(encoding="utf-8")


def test_the_example_prints_what_is_shown() -> None:
    shown = dict(re.findall(r"```(\w+)\n(.*?)```", TRUTH, re.DOTALL))
    run = subprocess.run([sys.executable, "-c", shown["python"]], capture_output=True, text=True, check=True)
    assert run.stdout == shown["text"]


def test_the_rates_are_those_of_the_benchmark() -> None:
    measured = {
        cells[0]: cells for cells in tables((DOCS / "benchmarks.md").read_text(encoding="utf-8")) if len(cells) == 5
    }
    shown = [cells for cells in tables(TRUTH) if cells[0] in measured and len(cells) == 6]
    assert len(shown) == 9  # a head of two lines and seven procedures
    for procedure, *rates, worst in shown[2:]:
        assert (" ".join(rates), worst) == (measured[procedure][2], measured[procedure][4]), procedure


def tables(text: str) -> list[list[str]]:
    """The cells of all tables' lines."""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
