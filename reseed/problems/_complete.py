"""From a problem's module to the record that callers use: mistakes are reported, gaps filled."""

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


def complete(name: str, module: Any) -> Problem:
    """The problem in a module or object. Raises ReseedError with everything that is missing or of the wrong kind."""
    if wrong := mistakes_of(module):
        raise ReseedError(mistake_list(f"problem '{name}'", wrong) + "\n  docs/problems.md has an example")
    columns = tuple(module.columns)
    own: dict[str, Any] = {
        ability: getattr(module, ability) for ability in ("parse", "refuse") if hasattr(module, ability)
    }
    if isinstance(module, Shortens):
        own["shorten"] = lambda row, keep: module.shorten(copy(row), keep)  # a copy, since it may change the row
    if isinstance(module, Blends):
        own |= {"blend": module.blend, "votes": False}
    if isinstance(module, Generates):
        own |= {"request": module.request, "row": with_id(module.row), "generates": True}
    else:
        own |= {"request": unable(name), "row": unable(name)}
    return Problem(
        name, columns, module.metric, module.higher_is_better, module.prompt, module.completion,
        checked_scores(name, module.scores), getattr(module, "prompt_column", columns[0]), **own,
    )  # fmt: skip


def mistakes_of(module: Any) -> list[str]:
    """Why a module is no problem, as lines that begin with a name."""
    known = [name for name in dir(module) if not name.startswith("_")]
    wrong = [f"{name}: missing{nearest(name, known)}" for name in REQUIRED if not hasattr(module, name)]
    wrong += [
        line for name in ARGUMENTS if hasattr(module, name) for line in function_mistakes(name, getattr(module, name))
    ]
    for one, other in (("request", "row"), ("row", "request")):
        if hasattr(module, one) and not hasattr(module, other):
            wrong.append(f"{other}: missing, and {one} is of no use without it")
    if hasattr(module, "metric") and not (isinstance(module.metric, str) and module.metric.strip()):
        wrong.append(f"metric: {module.metric!r}, wanted a word")
    if hasattr(module, "higher_is_better") and not isinstance(module.higher_is_better, bool):
        wrong.append(f"higher_is_better: {module.higher_is_better!r}, wanted True or False")
    return wrong + (column_mistakes(module) if hasattr(module, "columns") else [])


def function_mistakes(name: str, function: Any) -> list[str]:
    """What is wrong with a function's signature."""
    wanted = ARGUMENTS[name]
    if not callable(function):
        return [f"{name}: {type(function).__name__}, wanted a function of {', '.join(wanted)}"]
    try:
        signature = inspect.signature(function)
    except ValueError:  # some functions in C have none
        return []
    try:
        signature.bind(*wanted)
    except TypeError:
        return [f"{name}: takes {signature}, wanted ({', '.join(wanted)})"]
    return []


def column_mistakes(module: Any) -> list[str]:
    """What is wrong with the columns."""
    columns = module.columns
    if not isinstance(columns, tuple | list) or not columns or not all(isinstance(column, str) for column in columns):
        return [f"columns: {columns!r}, wanted a tuple of names, as in ('text', 'label')"]
    wrong = [
        f"columns: '{name}' is written by reseed itself; name it otherwise" for name in RESERVED if name in columns
    ]
    counted = getattr(module, "prompt_column", columns[0])
    if counted not in columns:
        wrong.append(f"prompt_column: {counted!r} is none of the columns{nearest(str(counted), list(columns))}")
    return wrong


def with_id(row: Callable[[str, str, str], Row]) -> Callable[[str, str, str], Row]:
    """The function, but its rows get the digest of their content as id, unless they have one."""

    def row_with_id(source: str, instruction: str, answer: str) -> Row:
        values = row(source, instruction, answer)
        return {"id": digest(values, 16), **values}

    return row_with_id


def unable(name: str) -> Callable[..., Any]:
    """A stand-in for the functions that generating rows needs, which raises ReseedError."""

    def refuse(*_: str) -> NoReturn:
        raise ReseedError(
            f"problem '{name}': a recipe that generates rows needs request and row, which it lacks; give data.train, or add "
            "request(source, instruction) and row(source, instruction, answer) to its module"
        )

    return refuse


def checked_scores(name: str, scores: Callable[..., Any]) -> Callable[..., NDArray[np.float64]]:
    """The function, but its scores are an array with one finite number a row, or it raises ReseedError."""

    def numbers(answers: Sequence[str], rows: Sequence[Row], embed: Embed) -> NDArray[np.float64]:
        import numpy as np

        found = scores(answers, rows, embed)
        begin, wanted = f"problem '{name}': scores", f"wanted a list or array of {len(rows)} numbers, one a row"
        try:
            array = np.asarray(found, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise ReseedError(f"{begin} gave {type(found).__name__} ({first_line(error)}); {wanted}") from error
        if array.shape != (len(rows),):
            raise ReseedError(f"{begin} gave {type(found).__name__} of shape {array.shape}; {wanted}")
        if len(strange := np.flatnonzero(~np.isfinite(array))):
            first = int(strange[0])
            raise ReseedError(
                f"{begin} gave {array[first]} for the answer {answers[first][:60]!r} to row {rows[first].get('id')}; "
                "wanted a finite number whatever the answer is"
            )
        return array

    return numbers
