"""Problems of the user's own: found, completed, and refused with what is wrong."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from reseed.data.curation import curate
from reseed.data.sources import as_rows
from reseed.evaluation.answers import blend
from reseed.evaluation.scoring import Scorer
from reseed.problems import Problem, ProblemModule, find_problem, load_problem, portable_errors, problem_identity
from reseed.records import ReseedError

SHOUT = """
columns = ("text", "loud")
metric = "wrong letters"
higher_is_better = False

def prompt(row): return row["text"]
def completion(row): return row["loud"]
def scores(answers, rows, embed):
    return [sum(a != b for a, b in zip(x, r["loud"])) for x, r in zip(answers, rows)]
"""
OBJECT = """
from __future__ import annotations
from dataclasses import dataclass

@dataclass(frozen=True)
class Shout:
    columns: tuple[str, ...] = ("text", "loud")
    metric: str = "letters"
    higher_is_better: bool = False
    def prompt(self, row): return row["text"]
    def completion(self, row): return row["loud"]
    def scores(self, answers, rows, embed): return [len(a) for a in answers]
    def refuse(self, row): return "quiet" if row["loud"].islower() else None
    def shorten(self, row, keep): return {**row, "text": row["text"][: int(len(row["text"]) * keep)]}
    def blend(self, answers): return answers[-1]
    def request(self, source, instruction): return f"{instruction}: {source}"
    def row(self, source, instruction, answer): return {"text": source, "loud": answer}

PROBLEM = Shout()
"""
ROWS = [{"id": "1", "text": "a", "loud": "A"}, {"id": "2", "text": "b", "loud": "BB"}]


def own(source: str, name: str = "shout") -> Problem:
    return load_problem(ProblemModule(name, source))


def no_vectors(texts: object) -> np.ndarray:
    raise AssertionError("not asked for")


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's package on the path; what it brought into the process is gone after the test."""
    folder = tmp_path / "my_problems"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "words.py").write_text("NAME = 'letters'\n")
    (folder / "shout.py").write_text("from .words import NAME\n" + SHOUT.replace('"wrong letters"', "NAME"))
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.startswith("my_problems")]:
        monkeypatch.delitem(sys.modules, name)
    return folder


def test_what_a_small_problem_leaves_out_is_filled() -> None:
    problem = own(SHOUT)
    assert (problem.name, problem.columns, problem.prompt_column) == ("shout", ("text", "loud"), "text")
    assert (problem.metric, problem.higher_is_better) == ("wrong letters", False)
    assert problem.parse("  A\n") == "A"
    assert problem.refuse(ROWS[0]) is None
    assert problem.shorten(ROWS[0], 0.0) == ROWS[0]
    assert (problem.generates, problem.votes) == (False, True)
    with pytest.raises(ReseedError, match=r"problem 'shout': .*needs request and row, which it lacks; give data.train"):
        problem.request("text", "Shout.")
    scores = Scorer(problem, ROWS, no_vectors).per_row({"1": "A", "2": "xy"})
    assert (scores.dtype, scores.tolist()) == (np.float64, [0.0, 2.0]), "a list of numbers will do"


def test_what_a_problem_has_is_taken() -> None:
    problem = own(OBJECT)
    assert (problem.generates, problem.votes) == (True, False)
    made = problem.row("a", "Shout.", "A")
    assert made == next(as_rows([{"text": "a", "loud": "A"}], problem, "here")), "the id is the digest of the content"
    dropped: Counter[str] = Counter()
    assert list(curate([made, problem.row("b", "Shout.", "b")], problem, dropped)) == [made]
    assert dropped == {"quiet": 1}
    assert problem.blend(["x", "y"]) == "y"
    assert problem.shorten(ROWS[1] | {"text": "abcd"}, 0.5)["text"] == "ab"


@pytest.mark.parametrize(
    ("answers", "voted"),
    [
        (["cat", "dog", "dog"], "dog"),
        (["cat", "dog"], "cat"),
        (["", " ", "dog"], "dog"),
        (["cat"], "cat"),
        (["", ""], ""),
        (["bee", "cat", "cat", "bee"], "bee"),
    ],
)
def test_models_vote_where_a_problem_has_no_blend(answers: list[str], voted: str) -> None:
    assert blend(own(SHOUT), [{"1": answer} for answer in answers]) == {"1": voted}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("[[1.0], [2.0]]", r"scores gave list of shape \(2, 1\); wanted a list or array of 2 numbers, one a row"),
        ("[1.0]", r"of shape \(1,\)"),
        ("1.0", r"scores gave float of shape \(\)"),
        ("['good', 'bad']", "scores gave list .*could not convert string to float"),
        ("[0.5, float('nan')]", "scores gave nan for the answer 'B' to row 2; wanted a finite number"),
        ("[None, 1]", "scores gave nan for the answer 'A' to row 1"),
    ],
)
def test_scores_that_are_no_numbers_are_reported_whenever_they_come(given: str, said: str) -> None:
    problem = own(f"{SHOUT}\ndef scores(answers, rows, embed): return {given}\n")
    with pytest.raises(ReseedError, match=f"problem 'shout': .*{said}"):
        Scorer(problem, ROWS, no_vectors).per_row({"1": "A", "2": "B"})


def test_a_file_beside_the_recipe_comes_first(tmp_path: Path) -> None:
    (tmp_path / "shout.py").write_text(SHOUT)
    (tmp_path / "prompt_recovery.py").write_text(SHOUT)
    assert load_problem(find_problem("shout", tmp_path)).metric == "wrong letters"
    assert load_problem(find_problem("prompt-recovery", tmp_path)).metric == "wrong letters"
    assert load_problem(find_problem("prompt-recovery")).metric == "scs"
    (tmp_path / "shout.py").write_bytes(b"\xff")
    with pytest.raises(ReseedError, match=r"problem 'shout': cannot read shout.py .*; save it as UTF-8 text"):
        find_problem("shout", tmp_path)


def test_a_module_by_its_dotted_name_with_what_it_imports(package: Path) -> None:
    found = find_problem("my_problems.shout")
    assert load_problem(found).metric == "letters"
    assert found.source == (package / "shout.py").read_text()


def test_a_key_holds_the_module_and_not_only_its_name() -> None:
    one, same, other = (ProblemModule("shout", source) for source in (SHOUT, SHOUT, f"{SHOUT}# edited\n"))
    assert problem_identity(one) == problem_identity(same) != problem_identity(other)
    assert problem_identity(one).startswith("shout@")
    assert problem_identity(ProblemModule("prompt-recovery")) == "prompt-recovery", "what ships keeps its keys"


def test_the_text_is_all_that_another_process_needs(tmp_path: Path) -> None:
    """As on another node: pickled, with neither file nor folder there, and not the text of an edit meanwhile."""
    (tmp_path / "shout.py").write_text(SHOUT)
    found = find_problem("shout", tmp_path)
    (tmp_path / "shout.py").unlink()
    code = (
        "import pickle, sys; from reseed.problems import load_problem; "
        "problem = load_problem(pickle.load(sys.stdin.buffer)); print(problem.name, problem.metric)"
    )
    done = subprocess.run([sys.executable, "-c", code], input=pickle.dumps(found), capture_output=True, check=True)
    assert done.stdout.decode().strip() == "shout wrong letters"


@pytest.mark.parametrize("name", ["prompt-recovry", "prompt_recovery", "recovery-prompt", "..shout", ""])
def test_misspelt_name_is_answered_with_the_nearest(name: str) -> None:
    with pytest.raises(ReseedError) as caught:
        load_problem(name)
    assert f"problem '{name}': unknown" in str(caught.value)
    assert "there is prompt-recovery, or write " in str(caught.value)
    if name.startswith("prompt"):
        assert "did you mean 'prompt-recovery'" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("my_problems.shouted", "cannot import my_problems.shouted .*is it on PYTHONPATH"),
        ("not_there.shout", "cannot import not_there.shout .*No module named 'not_there'"),
        ("shout.py", "write 'shout' for a file beside the recipe"),
    ],
)
def test_module_that_is_not_there_is_reported(package: Path, name: str, said: str) -> None:
    with pytest.raises(ReseedError, match=f"problem '{name}': .*{said}"):
        find_problem(name)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("x = 1\n", ["6 mistakes", "columns: missing", "scores: missing", "docs/problems.md"]),
        (SHOUT.replace("def scores", "def score"), ["1 mistake\n", "scores: missing (did you mean 'score'?)"]),
        (SHOUT.replace('("text", "loud")', '"text"'), ["columns: 'text', wanted a tuple of names"]),
        (SHOUT.replace('"text", "loud"', '"text", "id"'), ["columns: 'id' is written by reseed itself"]),
        (f"{SHOUT}prompt_column = 'txt'", ["prompt_column: 'txt' is none of the columns (did you mean 'text'?)"]),
        (f"{SHOUT}higher_is_better = 'no'", ["higher_is_better: 'no', wanted True or False"]),
        (f"{SHOUT}metric = 3", ["metric: 3, wanted a word"]),
        (f"{SHOUT}parse = 'strip'\nmetric = ''", ["2 mistakes", "parse: str, wanted a function"]),
        (f"{SHOUT}def row(s, i, a): return {{}}", ["request: missing, and row is of no use without it"]),
        (
            f"{SHOUT}def scores(answers, rows): return []",
            ["scores: takes (answers, rows), wanted (answers, rows, embed)"],
        ),
        (
            f"{SHOUT}def of(word: Nowhere): return word\n",
            ["shout.py, line 10: NameError: name 'Nowhere' is not defined"],
        ),
        (f"{SHOUT}1 / 0\n", ["shout.py, line 10: ZeroDivisionError: division by zero; mend it"]),
        (f"{SHOUT}def x(:\n", ["shout.py, line 10: SyntaxError: "]),
        (
            "import a_package_that_is_not_there\n",
            ["shout.py, line 1: ModuleNotFoundError", "install it here and wherever"],
        ),
    ],
)
def test_all_that_is_wrong_with_a_module_is_reported(source: str, said: list[str]) -> None:
    with pytest.raises(ReseedError) as caught:
        own(source)
    assert str(caught.value).startswith("problem 'shout': ")
    for part in said:
        assert part in str(caught.value)


def test_an_error_that_a_problem_defines_travels_between_processes() -> None:
    source = SHOUT + "class Odd(Exception): pass\n\ndef refuse(row):\n    raise Odd('that row')\n"
    problem = load_problem(ProblemModule("mine", source))
    with pytest.raises(ReseedError, match=r"problem 'mine': mine.py, line \d+: Odd: that row"), portable_errors():
        problem.refuse({})
    with pytest.raises(KeyError), portable_errors():
        raise KeyError("of another kind")
