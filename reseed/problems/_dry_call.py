"""A problem tried on one row with invented answers, so that its mistakes show before anything is trained."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from reseed.mistakes import mistake_list, nearest
from reseed.problems._module import file_of, told
from reseed.problems._protocol import Problem
from reseed.records import ReseedError, Row

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

INVENTED = "An invented answer."


def dry_call(problem: Problem, rows: Sequence[Row] = (), pair: tuple[str, str] | None = None) -> list[str]:
    """Call everything that a run calls on the first of `rows` that the problem does not refuse, or on the row that it
    makes of a source and an instruction, or on an invented one.

    Raises ReseedError with every mistake at once; returns what looks odd. What an invented row is blamed for is not told:
    no label, grid or number can be made up for every problem.
    """
    trial = Trial(problem)
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
    """A row that tells which column was asked for in vain."""

    def __missing__(self, column: object) -> str:
        raise MissingColumnError(str(column))


class Trial:
    """The calls so far and what was wrong with them."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.invented = False
        self.wrong: dict[str, str] = {}  # the first mistake of each function
        self.notes: list[str] = []

    def fit_row(self, rows: Sequence[Row]) -> Row:
        """The first row that is not refused, or one made up of words."""
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
        """The row that an invented answer of the generator makes."""
        problem = self.problem
        if not problem.generates:
            problem.request(source, instruction)  # which says so
        self.call("request", lambda: problem.request(source, instruction), text_fault)
        given = self.call("row", lambda: problem.row(source, instruction, INVENTED), lambda r: row_fault(r, problem))
        return self.stand_in(given) if given is not None else self.fit_row([])

    def stand_in(self, values: Row) -> Row:
        """A row that is not of the recipe's source."""
        row, self.invented = WatchedRow({"id": "invented", **values}), True
        self.call("refuse", lambda: self.problem.refuse(row), reason_fault)
        return row

    def call(self, name: str, function: Callable[[], Any], fault: Callable[[Any], str] = lambda given: "") -> Any:
        """What the function gave, or None after a mistake."""
        columns, file = self.problem.columns, file_of(self.problem.name)
        try:
            given = function()
        except MissingColumnError as error:
            known = f"none of its columns {', '.join(columns)}{nearest(str(error.args[0]), list(columns))}"
            said = f"{name}: it reads row['{error.args[0]}'], which is {known}"
        except ReseedError as error:
            said = str(error).removeprefix(f"problem '{self.problem.name}': ")
        except Exception as error:
            excused = self.invented and not isinstance(error, (NameError, ImportError))
            said = "" if excused else f"{name}: {told(error, file)}"
        else:
            if not (found := fault(given)):
                return given
            said = f"{name}: gave {found}"
        if said:
            self.wrong.setdefault(name, said)
        return None

    def any_text(self, name: str, function: Callable[[str], str], text: str) -> str:
        """Call a function that must take any text, since a model may write anything: no error is excused."""
        before, self.invented = self.invented, False
        given = self.call(name, lambda: function(text), kind_fault)
        self.invented = before
        return given or ""


def kind_fault(given: object) -> str:
    """What is wrong with a text, or nothing."""
    return "" if isinstance(given, str) else f"{shown(given)}, wanted a text"


def text_fault(given: object) -> str:
    """What is wrong with a text that must not be blank, or nothing."""
    return kind_fault(given) or ("" if str(given).strip() else "a blank text; wanted one that says something")


def reason_fault(given: object) -> str:
    """What is wrong with a reason to refuse a row, or nothing."""
    return "" if given is None or isinstance(given, str) else f"{shown(given)}, wanted None or the reason as a text"


def row_fault(given: object, problem: Problem) -> str:
    """What is wrong with a row that the problem made, or nothing."""
    if not isinstance(given, Mapping):
        return f"{shown(given)}, wanted a dict with {', '.join(problem.columns)}"
    if missing := [column for column in problem.columns if column not in given]:
        return f"a row without {', '.join(missing)}"
    strange = [f"{name} = {shown(value)}" for name, value in given.items() if not isinstance(value, str)]
    return f"{', '.join(strange)}; wanted texts" if strange else ""


def unchanged_fault(given: bool) -> str:
    """What is wrong with a shorter row whose completion is another one."""
    return "" if given else "a row with another completion; it must cut the source text, never the answer"


def shown(given: object) -> str:
    """A value of a wrong kind, with its kind."""
    return f"{type(given).__name__} {given!r:.60}"


def invented_vectors(texts: Sequence[str]) -> NDArray[np.float32]:
    """Unit vectors without a model: equal texts are equal, and no two others are orthogonal."""
    import numpy as np

    raw = np.array([list(hashlib.sha256(text.encode()).digest()) for text in texts], dtype=np.float32) + 1
    return np.asarray(raw / np.linalg.norm(raw, axis=1, keepdims=True), dtype=np.float32)


def odd_scores(problem: Problem, scores: NDArray[np.float64], invented: bool) -> list[str]:
    """A word about a right answer that scores no better than a blank one. An invented row may have no right answer."""
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
