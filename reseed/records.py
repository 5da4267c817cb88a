"""The small frozen records that cross a boundary: between steps, between processes, into the store."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Row = dict[str, str]
"""One row of data: column name → text. Every row has an `id`, the digest of its content."""

Finish = Literal["stop", "length", "too-long"]


class ReseedError(Exception):
    """Something a user can mend: the message names the thing, the value seen, the value wanted and the fix."""


@dataclass(frozen=True)
class Artifact:
    """Immutable files in the store: `<kind>/<name>/<key>/`."""

    kind: str
    name: str
    key: str

    @property
    def path(self) -> str:
        """The artifact's folder below the store's root."""
        return f"{self.kind}/{self.name}/{self.key}"

    def __str__(self) -> str:
        return f"{self.kind}/{self.name}/{self.key[:12]}"


@dataclass(frozen=True)
class Sampling:
    """How an engine draws text. `temperature` 0 is greedy."""

    max_new_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0


@dataclass(frozen=True)
class Prompt:
    """A text for an engine to continue; `id` joins the answer to it."""

    id: str
    text: str
    templated: bool = False  # a chat template wrote the text: it already has its special tokens


@dataclass(frozen=True)
class Generation:
    """What an engine wrote for the prompt with the same id, and why it stopped."""

    id: str
    text: str
    finish: Finish
    tokens: int


@dataclass(frozen=True)
class Member:
    """One trained (variant, seed)."""

    variant: str
    seed: int

    def __str__(self) -> str:
        return f"{self.variant} seed {self.seed}"


@dataclass(frozen=True)
class LossPoint:
    """One point of a loss curve; `train` is the mean since the last point, `validation` a mean over label tokens.

    `metric` is the problem's, of answers to some validation rows, where the best step is chosen by it.
    """

    step: int
    train: float | None = None
    validation: float | None = None
    metric: float | None = None


@dataclass(frozen=True)
class Interval:
    """A mean with its 95 % normal interval ±1.96·std/√n, as the prompt recovery contest reported it."""

    mean: float
    half_width: float


@dataclass(frozen=True)
class MemberResult:
    """One member's score on the held-out rows. `cut_off` counts answers that hit the length limit; None in older results."""

    seed: int
    score: float
    best_step: int
    artifact: str
    curve: tuple[LossPoint, ...] = ()
    cut_off: int | None = None


@dataclass(frozen=True)
class VariantResult:
    """The members of one variant and their ensemble. `std` is the sample deviation over seeds, None for one seed."""

    name: str
    members: tuple[MemberResult, ...]
    mean: float
    std: float | None
    ensemble: float


@dataclass(frozen=True)
class ConstantResult:
    """The score of one fixed text as the answer to every row: what a model must beat to have learnt anything."""

    text: str
    score: float


@dataclass(frozen=True)
class DatasetStats:
    """The numbers of the dataset table, and how many rows were dropped for each reason."""

    n: int
    n_prompts: int
    ratio: float
    median_tokens: float
    dropped: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Results:
    """Everything a report shows about one experiment."""

    experiment: str
    question: str
    problem: str
    metric: str
    higher_is_better: bool
    rows: int
    untrained: float
    variants: tuple[VariantResult, ...]
    constants: tuple[ConstantResult, ...] = ()
    dataset: DatasetStats | None = None
    train_rows: int = 0
    gain: Interval | None = None  # ensemble of the first variant − untrained, paired by row

    def to_json(self) -> dict[str, Any]:
        """The object that `reseed results --json` prints; keys are only ever added."""
        return {
            "experiment": self.experiment,
            "question": self.question,
            "problem": self.problem,
            "metric": self.metric,
            "higher_is_better": self.higher_is_better,
            "rows": self.rows,
            "train_rows": self.train_rows,
            "untrained": {"score": self.untrained},
            "variants": [
                {
                    "name": v.name,
                    "members": [
                        {
                            "seed": m.seed,
                            "score": m.score,
                            "best_step": m.best_step,
                            "artifact": m.artifact,
                            "cut_off": m.cut_off,
                        }
                        for m in v.members
                    ],
                    "mean": v.mean,
                    "std": v.std,
                    "ensemble": {"score": v.ensemble},
                }
                for v in self.variants
            ],
            "constants": [asdict(c) for c in self.constants],
            "gain": asdict(self.gain) if self.gain else None,
            "dataset": asdict(self.dataset) if self.dataset else None,
        }
