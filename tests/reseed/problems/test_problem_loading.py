from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from reseed.data.curation import curate
from reseed.data.sources import as_rows
from reseed.evaluation.scoring import Scorer
from reseed.problems import Problem, load_problem
from reseed.records import ReseedError

OWN = '''
"""Shout: the answer is the text in capitals."""
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Shout:
    name: str = "shout"
    columns: tuple[str, ...] = ("text", "loud")
    prompt_column: str = "loud"
    metric: str = "wrong letters"
    higher_is_better: bool = False

    def request(self, source, instruction): return source
    def row(self, source, instruction, answer): return {"id": source, "text": source, "loud": answer}
    def refuse(self, row): return "quiet" if row["loud"].islower() else None
    def prompt(self, row): return row["text"]
    def completion(self, row): return row["loud"]
    def shorten(self, row, keep): return row
    def parse(self, text): return text.strip()
    def blend(self, answers): return answers[0]
    def scores(self, answers, rows, embed):
        return np.array([sum(a != b for a, b in zip(x, r["loud"])) for x, r in zip(answers, rows)], dtype=float)


PROBLEM = Shout()
'''


@pytest.fixture
def own_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's package on the path; what it brought into the process is gone after the test."""
    package = tmp_path / "my_problems"
    package.mkdir()
    (package / "shout.py").write_text(OWN)
    (package / "half.py").write_text("class Half:\n    name = 'half'\n    metric = 'm'\nPROBLEM = Half()\n")
    (package / "none.py").write_text("x = 1\n")
    (package / "needs.py").write_text("import a_package_that_is_not_there\n")
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.startswith("my_problems")]:
        monkeypatch.delitem(sys.modules, name)
    return package


def test_users_own_module_works_by_its_dotted_name(own_package: Path) -> None:
    problem = load_problem("my_problems.shout")
    assert isinstance(problem, Problem)
    rows = as_rows(
        [{"text": "a", "loud": "A"}, {"text": "b", "loud": "b"}, {"text": "c", "loud": "C"}], problem, "here"
    )
    kept = curate(rows, {}, problem)
    assert kept.dropped == {"quiet": 1}
    scorer = Scorer(problem, kept.rows, lambda texts: np.zeros((len(texts), 1), dtype=np.float32))
    assert scorer.constant("A") == 0.5


@pytest.mark.parametrize("name", ["prompt-recovry", "prompt_recovery", "recovery-prompt"])
def test_misspelt_name_is_answered_with_the_nearest(name: str) -> None:
    with pytest.raises(ReseedError) as caught:
        load_problem(name)
    assert f"problem '{name}': unknown" in str(caught.value)
    assert "there is prompt-recovery, or give the dotted name" in str(caught.value)
    if name != "recovery-prompt":
        assert "did you mean 'prompt-recovery'" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("my_problems.shouted", "cannot import my_problems.shouted .*is it on PYTHONPATH"),
        ("my_problems.needs", "cannot import my_problems.needs .*a_package_that_is_not_there"),
        ("my_problems.none", "my_problems.none.PROBLEM is no Problem, it lacks name, "),
        ("my_problems.half", "is no Problem, it lacks columns, prompt_column, higher_is_better, request, row, "),
        ("..shout", "unknown"),
        ("", "unknown"),
    ],
)
def test_module_that_is_none_is_told_what_it_lacks(own_package: Path, name: str, said: str) -> None:
    with pytest.raises(ReseedError, match=f"problem '{name}': .*{said}"):
        load_problem(name)
