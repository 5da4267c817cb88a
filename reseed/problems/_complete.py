"""From a problem's module to the record that callers see: mistakes are told, gaps are filled."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from copy import copy
from typing import TYPE_CHECKING, Any, NoReturn

from reseed.files import digest
from reseed.mistakes import first_line, mistake_list, nearest
from reseed.problems._protocol import Blends, Essentials, Generates, Problem, Shortens
from reseed.records import ReseedError, Row

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from reseed.problems._protocol import Embed

REQUIRED = (*Essentials.__annotations__, *(name for name in vars(Essentials) if not name.startswith("_")))
ARGUMENTS = {
    "prompt": ("row",), "completion": ("row",), "scores": ("answers", "rows", "embed"), "parse": ("text",), "refuse": ("row",),
    "request": ("source", "instruction"), "row": ("source", "instruction", "answer"), "shorten": ("row", "keep"),
    "blend": ("answers",),
}  # fmt: skip
RESERVED = ("id", "finish", "tokens")  # reseed writes these into rows itself


def complete(name: str, given: Any) -> Problem:
    """The problem that a module or object makes. Raises ReseedError with all that is missing or of the wrong kind."""
    if wrong := mistakes_of(given):
        raise ReseedError(mistake_list(f"problem '{name}'", wrong) + "\n  docs/problems.md has an example")
    columns = tuple(given.columns)
    own: dict[str, Any] = {
        ability: getattr(given, ability) for ability in ("parse", "refuse") if hasattr(given, ability)
    }
    if isinstance(given, Shortens):
        own["shorten"] = lambda row, keep: given.shorten(copy(row), keep)  # it may change the row that it is handed
    if isinstance(given, Blends):
        own |= {"blend": given.blend, "votes": False}
    if isinstance(given, Generates):
        own |= {"request": given.request, "row": with_id(given.row), "generates": True}
    else:
        own |= {"request": unable(name), "row": unable(name)}
    return Problem(
        name, columns, given.metric, given.higher_is_better, given.prompt, given.completion, checked(name, given.scores),
        getattr(given, "prompt_column", columns[0]), **own,
    )  # fmt: skip


def mistakes_of(given: Any) -> list[str]:
    """What keeps it from being a problem, as lines that begin with a name."""
    known = [name for name in dir(given) if not name.startswith("_")]
    wrong = [f"{name}: missing{nearest(name, known)}" for name in REQUIRED if not hasattr(given, name)]
    wrong += [
        line for name in ARGUMENTS if hasattr(given, name) for line in function_mistakes(name, getattr(given, name))
    ]
    for one, other in (("request", "row"), ("row", "request")):
        if hasattr(given, one) and not hasattr(given, other):
            wrong.append(f"{other}: missing, and {one} is of no use without it")
    if hasattr(given, "metric") and not (isinstance(given.metric, str) and given.metric.strip()):
        wrong.append(f"metric: {given.metric!r}, wanted a word")
    if hasattr(given, "higher_is_better") and not isinstance(given.higher_is_better, bool):
        wrong.append(f"higher_is_better: {given.higher_is_better!r}, wanted True or False")
    return wrong + (column_mistakes(given) if hasattr(given, "columns") else [])


def function_mistakes(name: str, function: Any) -> list[str]:
    """What is wrong with a function, seen from outside."""
    wanted = ARGUMENTS[name]
    if not callable(function):
        return [f"{name}: {type(function).__name__}, wanted a function of {', '.join(wanted)}"]
    try:
        signature = inspect.signature(function)
    except ValueError:  # some of C's have none
        return []
    try:
        signature.bind(*wanted)
    except TypeError:
        return [f"{name}: takes {signature}, wanted ({', '.join(wanted)})"]
    return []


def column_mistakes(given: Any) -> list[str]:
    """What is wrong with the columns."""
    columns = given.columns
    if not isinstance(columns, tuple | list) or not columns or not all(isinstance(column, str) for column in columns):
        return [f"columns: {columns!r}, wanted a tuple of names, as in ('text', 'label')"]
    wrong = [
        f"columns: '{name}' is written by reseed itself; name it otherwise" for name in RESERVED if name in columns
    ]
    counted = getattr(given, "prompt_column", columns[0])
    if counted not in columns:
        wrong.append(f"prompt_column: {counted!r} is none of the columns{nearest(str(counted), list(columns))}")
    return wrong


def with_id(row: Callable[[str, str, str], Row]) -> Callable[[str, str, str], Row]:
    """Rows with the digest of their content as id, unless they have one."""

    def made(source: str, instruction: str, answer: str) -> Row:
        values = row(source, instruction, answer)
        return {"id": digest(values, 16), **values}

    return made


def unable(name: str) -> Callable[..., Any]:
    """In place of what a generator needs."""

    def refuse(*_: str) -> NoReturn:
        raise ReseedError(
            f"problem '{name}': a recipe that generates rows needs request and row, which it lacks; give data.train, or add "
            "request(source, instruction) and row(source, instruction, answer) to its module"
        )

    return refuse


def checked(name: str, scores: Callable[..., Any]) -> Callable[..., NDArray[np.float64]]:
    """Scores as an array of one finite number a row, whatever sequence they come in, or a ReseedError."""

    def numbers(answers: Sequence[str], rows: Sequence[Row], embed: Embed) -> NDArray[np.float64]:
        import numpy as np

        given = scores(answers, rows, embed)
        begin, wanted = f"problem '{name}': scores", f"wanted a list or array of {len(rows)} numbers, one a row"
        try:
            array = np.asarray(given, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise ReseedError(f"{begin} gave {type(given).__name__} ({first_line(error)}); {wanted}") from error
        if array.shape != (len(rows),):
            raise ReseedError(f"{begin} gave {type(given).__name__} of shape {array.shape}; {wanted}")
        if len(strange := np.flatnonzero(~np.isfinite(array))):
            first = int(strange[0])
            raise ReseedError(
                f"{begin} gave {array[first]} for the answer {answers[first][:60]!r} to row {rows[first].get('id')}; "
                "wanted a finite number whatever the answer is"
            )
        return array

    return numbers
