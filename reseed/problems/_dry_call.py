"""Trying a problem on one row with invented answers, so that its mistakes show before anything is trained."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from reseed.mistakes import mistake_list, nearest
from reseed.problems._module import error_with_line, file_of
from reseed.problems._protocol import Problem
from reseed.records import ReseedError, Row

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

INVENTED = "An invented answer."


def dry_call(
    problem: Problem, rows: Sequence[Row] = (), pair: tuple[str, str] | None = None, invented: bool = False
) -> list[str]:
    """Call every function that a run calls; return notes on what looks odd.

    The row is the first of `rows` that the problem does not refuse, else one made from a source and an instruction
    (`pair`), else an invented one; `invented` says that `rows` are invented too. Raises ReseedError with every mistake at
    once, except errors on an invented row: no label, grid or number can be made up for every problem.
    """
    trial = Trial(problem, invented)
    row = trial.made_row(*pair) if pair is not None else trial.fit_row(rows)
    trial.call("prompt", lambda: problem.prompt(row), text_fault)
    completion = trial.call("completion", lambda: problem.completion(row), kind_fault)
    answers = [trial.any_text("parse", problem.parse, text) for text in (completion or INVENTED, INVENTED, "")]
    short = trial.call("shorten", lambda: problem.shorten(row, 0.5), lambda short: row_fault(short, problem))
    if short is not None and completion is not None:
        trial.call("shorten", lambda: problem.completion(short) == completion, unchanged_fault)
    trial.any_text("blend", lambda text: problem.blend([text, "", text, "other"]), INVENTED)
    scores = trial.call("scores", lambda: problem.scores(answers, [row] * len(answers), invented_vectors))
    if trial.wrong:
        raise ReseedError(mistake_list(f"problem '{problem.name}'", list(trial.wrong.values())))
    notes = list(trial.notes)
    if scores is not None and completion:
        notes += odd_scores(problem, scores, trial.invented)
    return notes


class MissingColumnError(KeyError):
    """A column that the problem does not name."""


class WatchedRow(dict[str, str]):
    """A row that raises MissingColumnError for a column that it lacks."""

    def __missing__(self, column: object) -> str:
        raise MissingColumnError(str(column))


class Trial:
    """Calls a problem's functions and collects what is wrong with them."""

    def __init__(self, problem: Problem, invented: bool = False) -> None:
        self.problem, self.invented = problem, invented
        self.wrong: dict[str, str] = {}  # the first mistake of each function
        self.notes: list[str] = []

    def fit_row(self, rows: Sequence[Row]) -> Row:
        """The first row that is not refused, else an invented one."""
        for row in map(WatchedRow, rows):
            reason = self.call("refuse", partial(self.problem.refuse, row), reason_fault)
            if self.wrong or reason is None:
                return row
        if rows:
            self.notes.append(
                f"problem '{self.problem.name}' refuses each of the first {len(rows)} rows: the first because of "
                f"“{self.problem.refuse(rows[0])}”; is that right?"
            )
        return self.stand_in({column: f"invented {column}" for column in self.problem.columns})

    def made_row(self, source: str, instruction: str) -> Row:
        """The row made from an invented answer of the generator."""
        problem = self.problem
        if not problem.generates:
            problem.request(source, instruction)  # which raises
        self.call("request", lambda: problem.request(source, instruction), text_fault)
        value = self.call("row", lambda: problem.row(source, instruction, INVENTED), lambda r: row_fault(r, problem))
        return self.stand_in(value) if value is not None else self.fit_row([])

    def stand_in(self, values: Row) -> Row:
        """A row of invented values."""
        row, self.invented = WatchedRow({"id": "invented", **values}), True
        self.call("refuse", lambda: self.problem.refuse(row), reason_fault)
        return row

    def call(self, name: str, function: Callable[[], Any], fault: Callable[[Any], str] = lambda value: "") -> Any:
        """What the function returned, or None after a mistake."""
        columns, file = self.problem.columns, file_of(self.problem.name)
        try:
            value = function()
        except MissingColumnError as error:
            known = f"none of its columns {', '.join(columns)}{nearest(str(error.args[0]), list(columns))}"
            said = f"{name}: it reads row['{error.args[0]}'], which is {known}"
        except ReseedError as error:
            said = str(error).removeprefix(f"problem '{self.problem.name}': ")
        except Exception as error:
            excused = self.invented and not isinstance(error, (NameError, ImportError))
            said = "" if excused else f"{name}: {error_with_line(error, file)}"
        else:
            if not (found := fault(value)):
                return value
            said = f"{name}: gave {found}"
        if said:
            self.wrong.setdefault(name, said)
        return None

    def any_text(self, name: str, function: Callable[[str], str], text: str) -> str:
        """Call a function that must accept any text, since a model may write anything: no error is excused."""
        before, self.invented = self.invented, False
        value = self.call(name, lambda: function(text), kind_fault)
        self.invented = before
        return value or ""


def kind_fault(value: object) -> str:
    """What is wrong with a text, or an empty string."""
    return "" if isinstance(value, str) else f"{value_and_kind(value)}, wanted a text"


def text_fault(value: object) -> str:
    """What is wrong with a text that must not be blank, or an empty string."""
    return kind_fault(value) or ("" if str(value).strip() else "a blank text; wanted one that says something")


def reason_fault(value: object) -> str:
    """What is wrong with a reason to refuse a row, or an empty string."""
    return (
        ""
        if value is None or isinstance(value, str)
        else f"{value_and_kind(value)}, wanted None or the reason as a text"
    )


def row_fault(value: object, problem: Problem) -> str:
    """What is wrong with a row that the problem made, or an empty string."""
    if not isinstance(value, Mapping):
        return f"{value_and_kind(value)}, wanted a dict with {', '.join(problem.columns)}"
    if missing := [column for column in problem.columns if column not in value]:
        return f"a row without {', '.join(missing)}"
    strange = [f"{name} = {value_and_kind(cell)}" for name, cell in value.items() if not isinstance(cell, str)]
    return f"{', '.join(strange)}; wanted texts" if strange else ""


def unchanged_fault(is_same: bool) -> str:
    """What is wrong with a shortened row if its completion changed, else an empty string."""
    return "" if is_same else "a row with another completion; it must cut the source text, never the answer"


def value_and_kind(value: object) -> str:
    """A value of a wrong kind, with its kind, for a message."""
    return f"{type(value).__name__} {value!r:.60}"


def invented_vectors(texts: Sequence[str]) -> NDArray[np.float32]:
    """Unit vectors without a model: equal texts get equal vectors, and no two are orthogonal."""
    import numpy as np

    raw = np.array([list(hashlib.sha256(text.encode()).digest()) for text in texts], dtype=np.float32) + 1
    return np.asarray(raw / np.linalg.norm(raw, axis=1, keepdims=True), dtype=np.float32)


def odd_scores(problem: Problem, scores: NDArray[np.float64], invented: bool) -> list[str]:
    """A note if the right answer scores no better than a blank one. An invented row may have no right answer."""
    right, blank = float(scores[0]), float(scores[-1])
    if right == blank:
        both = f"problem '{problem.name}': the right answer and a blank one both score {right:g}"
        return [] if invented else [f"{both}; does scores compare what parse finds in a completion?"]
    if (right > blank) == problem.higher_is_better:
        return []
    return [
        f"problem '{problem.name}': the right answer scores {right:g} and a blank one {blank:g}, with higher_is_better: "
        f"{problem.higher_is_better}; is that the right way round, and does parse find the answer in a completion?"
    ]
