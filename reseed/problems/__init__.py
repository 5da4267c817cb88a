"""What is being solved. A problem is a small object; a user's own module can be one."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from reseed.mistakes import nearest
from reseed.records import ReseedError, Row

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Embed = Callable[[Sequence[str]], NDArray[np.float32]]
    """Texts → unit vectors, float32, shape (texts, width)."""

BUILT_IN = {"prompt-recovery": "reseed.problems.prompt_recovery"}


@runtime_checkable
class Problem(Protocol):
    """Rows in, text for the models, a score out."""

    @property
    def name(self) -> str:
        """As recipes name it."""
        ...

    @property
    def columns(self) -> tuple[str, ...]:
        """What every row must hold."""
        ...

    @property
    def prompt_column(self) -> str:
        """The column whose distinct values the dataset table counts."""
        ...

    @property
    def metric(self) -> str:
        """What `scores` measures, in a word."""
        ...

    @property
    def higher_is_better(self) -> bool:
        """Which way the metric points."""
        ...

    def request(self, source: str, instruction: str) -> str:
        """What the generator is asked, as one user turn."""
        ...

    def row(self, source: str, instruction: str, answer: str) -> Row:
        """The row that a generator's answer makes."""
        ...

    def refuse(self, row: Row) -> str | None:
        """Why a row is not fit to train on, or None."""
        ...

    def prompt(self, row: Row) -> str:
        """What the student reads."""
        ...

    def completion(self, row: Row) -> str:
        """What the student should write."""
        ...

    def shorten(self, row: Row, keep: float) -> Row:
        """The row with its source text cut to the fraction `keep`; the answer is never touched."""
        ...

    def parse(self, text: str) -> str:
        """The student's answer, taken out of what it wrote."""
        ...

    def blend(self, answers: Sequence[str]) -> str:
        """One answer out of several models' answers to the same row."""
        ...

    def scores(self, answers: Sequence[str], rows: Sequence[Row], embed: Embed) -> NDArray[np.float64]:
        """The metric of each row, shape (rows,)."""
        ...


def load_problem(name: str) -> Problem:
    """A built-in problem by name, or the object `PROBLEM` of a module by its dotted name."""
    module_name = BUILT_IN.get(name, name)
    if name not in BUILT_IN and ("." not in name or name.startswith(".")):
        raise ReseedError(
            f"problem '{name}': unknown{nearest(name, list(BUILT_IN))}; there is {', '.join(BUILT_IN)}, "
            "or give the dotted name of a module that has a PROBLEM"
        )
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ReseedError(f"problem '{name}': cannot import {module_name} ({error}); is it on PYTHONPATH?") from error
    problem = getattr(module, "PROBLEM", None)
    if not isinstance(problem, Problem):
        wanted = [*Problem.__annotations__, *(member for member in vars(Problem) if not member.startswith("_"))]
        missing = ", ".join(member for member in dict.fromkeys(wanted) if not hasattr(problem, member))
        raise ReseedError(
            f"problem '{name}': {module_name}.PROBLEM is no Problem, it lacks {missing}; see reseed/problems/__init__.py"
        )
    return problem
