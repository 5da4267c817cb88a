"""What an experiment found, as frozen records: scores, comparisons and verdicts, as they are stored and shown."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from reseed.records import LossPoint, run_name

Estimand = Literal["recipe", "ensemble", "member"]
"""What a comparison claims: what one more run would give; the blend of these seeds; or these models alone."""

Verdict = Literal["better", "worse", "no difference beyond δ", "undecided"]


Crossing = tuple[int, int] | None
"""How many initialisations and orders a side's members cross; None where seeds are not split."""


@dataclass(frozen=True)
class NoiseParts:
    """The standard deviation of a difference by seeds, by groups, and by seeds within groups.

    Their squares add up to the variance, unless that is capped below: it is never less than by seeds or by groups alone.
    """

    seeds: float
    groups: float
    both: float


@dataclass(frozen=True)
class SeedNoise:
    """The standard deviation of one run's score by its initialisation, by its order, and by what only both explain."""

    initialisation: float
    order: float
    both: float


@dataclass(frozen=True)
class Design:
    """So many seeds a side and groups, and the power that they have."""

    seeds: int
    groups: int
    power: float


@dataclass(frozen=True)
class Influence:
    """The difference without one group of rows."""

    group: str
    rows: int
    difference: float


@dataclass(frozen=True)
class ComparisonResult:
    """A minus B over the held-out rows, in the metric's units, and what it says; `verdict` is of A.

    Of several variants compared with the same thing the intervals hold together: `level` is Bonferroni's, `adjusted_p`
    Holm's. Without noise to be measured (one group, or equal differences) there is neither interval nor verdict.
    """

    a: str
    b: str
    estimand: Estimand
    difference: float
    low: float | None
    high: float | None
    level: float
    p: float | None
    adjusted_p: float | None
    verdict: Verdict | None
    seeds: tuple[int, int]  # how many members a and b have; 0 for what was not drawn from many
    groups: int
    effective_groups: float
    noise: NoiseParts
    sought: float | None = None  # δ or, where the recipe has none, the size of the difference found: what power is of
    power: float | None = None  # None too where the sides have different numbers of seeds
    needed: Design | None = None  # the cheapest design that would see it; None if it is decided, or none would
    influence: tuple[Influence, ...] = ()  # the groups whose absence moves the difference most
    crossed: tuple[Crossing, Crossing] = (None, None)
    decided_at: int | None = None  # the number of seeds at which the verdict was reached, where seeds were added

    def to_json(self) -> dict[str, Any]:
        """As `reseed results --json` and `reseed compare --json` print it; `seeds` is the smaller number of both sides."""
        record = asdict(self)
        record["seeds"] = min((count for count in self.seeds if count), default=0)
        record["influence"] = list(record["influence"])
        return record


@dataclass(frozen=True)
class Look:
    """A comparison at one of several declared numbers of seeds, judged at the level that this look may spend."""

    seeds: int
    level: float
    a: str
    b: str
    difference: float
    low: float | None
    high: float | None
    verdict: Verdict | None

    @property
    def decides(self) -> bool:
        """True if it settles the question."""
        return self.verdict not in (None, "undecided")


@dataclass(frozen=True)
class Split:
    """The scores on one of several splits of the rows: of every member of each variant, one of what was not trained."""

    seed: int  # data.seed
    train_rows: int
    validation_rows: int
    rows: int  # that were tested
    scores: dict[str, tuple[float, ...]]


@dataclass(frozen=True)
class OverSplits:
    """A minus B over several splits, whose training rows differ too, and the verdict of A; of recipes, not of ensembles.

    `level` and `adjusted_p` are as in `ComparisonResult`. Without noise to be measured there is neither interval nor verdict.
    """

    a: str
    b: str
    difference: float
    level: float
    seeds: tuple[int, int]  # of a and of b; 0 for what was not trained
    splits: int
    low: float | None = None
    high: float | None = None
    p: float | None = None
    adjusted_p: float | None = None
    verdict: Verdict | None = None


@dataclass(frozen=True)
class Interval:
    """A difference with half of its interval: what `reseed results --json` calls `gain`."""

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
    order: int | None = None  # where seeds are split into initialisation and order

    @property
    def run(self) -> str:
        """The seed as people name it."""
        return run_name(self.seed, self.order)


@dataclass(frozen=True)
class VariantResult:
    """The members of one variant and their ensemble. `std` is the sample deviation over seeds, None for one seed."""

    name: str
    members: tuple[MemberResult, ...]
    mean: float
    std: float | None
    ensemble: float
    seed_noise: SeedNoise | None = None  # where seeds are split


@dataclass(frozen=True)
class ConstantResult:
    """The score of one fixed text as the answer to every row: what a model must beat to have learnt anything.

    If `cross_fitted`, it is the best of up to 400 training answers, chosen for each group of rows on all other groups, and
    `text` the one that was chosen most.
    """

    text: str
    score: float
    cross_fitted: bool = False


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
    baseline: str | None = None  # the variant that the others are compared with
    delta: float | None = None  # the smallest difference that matters, as the recipe says
    group_by: str = "id"  # the column whose values the rows are held out by
    comparisons: tuple[ComparisonResult, ...] = ()  # none in results of before they were made
    level: float = 0.95  # that all comparisons with the same thing are judged at together
    looks: tuple[Look, ...] = ()  # where seeds are added until it is decided: of this look and those before it
    most_seeds: int | None = None  # how many there may be then
    splits: tuple[Split, ...] = ()  # of the rows, where there are several: this one, the last of them, and those before
    planned_splits: int | None = None  # how many there will be then
    over_splits: tuple[OverSplits, ...] = ()  # once there are all of them

    @property
    def gain(self) -> Interval | None:
        """The baseline's ensemble minus the untrained model, if there is an interval."""
        for found in self.comparisons:
            if (
                (found.a, found.b) == (self.baseline, "untrained")
                and found.estimand != "recipe"
                and found.low is not None
            ):
                assert found.high is not None
                return Interval(found.difference, (found.high - found.low) / 2)
        return None

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
                            "order": m.order,
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
                    "seed_noise": asdict(v.seed_noise) if v.seed_noise else None,
                }
                for v in self.variants
            ],
            "constants": [asdict(c) for c in self.constants],
            "baseline": self.baseline,
            "delta": self.delta,
            "group_by": self.group_by,
            "comparisons": [found.to_json() for found in self.comparisons],
            "looks": [asdict(look) for look in self.looks],
            "most_seeds": self.most_seeds,
            "splits": [asdict(split) for split in self.splits],
            "planned_splits": self.planned_splits,
            "over_splits": [asdict(found) for found in self.over_splits],
            "gain": asdict(self.gain) if self.gain else None,
            "dataset": asdict(self.dataset) if self.dataset else None,
        }
