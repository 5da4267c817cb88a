"""What a problem is: a small required part, optional abilities, and the record that callers use."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from reseed.records import Row

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Embed = Callable[[Sequence[str]], NDArray[np.float32]]
    """Texts → unit vectors, float32, shape (texts, width)."""


class Essentials(Protocol):
    """What every problem has, as a module or as an object `PROBLEM` in a module."""

    columns: Sequence[str]
    """What every row must hold."""
    metric: str
    """What `scores` measures, in a word."""
    higher_is_better: bool
    """Which way the metric points."""

    def prompt(self, row: Row) -> str:
        """What the student reads."""
        ...

    def completion(self, row: Row) -> str:
        """What the student should write."""
        ...

    def scores(
        self, answers: Sequence[str], rows: Sequence[Row], embed: Embed
    ) -> Sequence[float] | NDArray[np.float64]:
        """The metric of each row, in order. `embed` turns texts into unit vectors, for semantic metrics."""
        ...


@runtime_checkable
class Generates(Protocol):
    """A problem whose rows a generator can write: what a recipe with a `generation` section needs."""

    def request(self, source: str, instruction: str) -> str:
        """What the generator is asked, as one user turn."""
        ...

    def row(self, source: str, instruction: str, answer: str) -> Row:
        """The row made from a generator's answer; its id is the digest of its content unless it sets one."""
        ...


@runtime_checkable
class Shortens(Protocol):
    """A problem whose rows can be cut to fit. Without this, rows that are too long are dropped and counted."""

    def shorten(self, row: Row, keep: float) -> Row:
        """The row with its source text cut to the fraction `keep`; the answer is never touched."""
        ...


@runtime_checkable
class Blends(Protocol):
    """A problem that knows better than a vote how several models' answers become one."""

    def blend(self, answers: Sequence[str]) -> str:
        """One answer out of several models' answers to the same row."""
        ...


@dataclass(frozen=True)
class Problem:
    """A problem as callers use it, with defaults for what its module leaves out."""

    name: str
    columns: tuple[str, ...]
    metric: str
    higher_is_better: bool
    prompt: Callable[[Row], str]
    completion: Callable[[Row], str]
    scores: Callable[[Sequence[str], Sequence[Row], Embed], NDArray[np.float64]]
    prompt_column: str
    """The column whose distinct values the dataset table counts; by default the first."""
    parse: Callable[[str], str] = str.strip
    """The student's answer, taken out of what it wrote."""
    refuse: Callable[[Row], str | None] = lambda row: None
    """Why a row is not fit to train on, or None."""
    generates: bool = False
    """Whether it has `request` and `row`; if not, they raise ReseedError."""
    request: Callable[[str, str], str] = lambda source, instruction: source
    row: Callable[[str, str, str], Row] = lambda source, instruction, answer: {}
    shorten: Callable[[Row, float], Row] = lambda row, keep: row
    votes: bool = True
    """Whether `blend` is the default: a vote, which says little about answers in free text."""
    blend: Callable[[Sequence[str]], str] = lambda answers: most_frequent(answers)


def most_frequent(answers: Sequence[str]) -> str:
    """The answer that most models gave; in a tie, the first of them. Blank answers have no vote."""
    votes = Counter(answer for answer in answers if answer.strip())
    return votes.most_common(1)[0][0] if votes else ""
