from __future__ import annotations

import math

from reseed.records import LossPoint
from reseed.results import (
    ComparisonResult,
    ConstantResult,
    DatasetStats,
    Design,
    Estimand,
    Influence,
    MemberResult,
    NoiseParts,
    Results,
    VariantResult,
    Verdict,
)


def curve(seed: int) -> tuple[LossPoint, ...]:
    """A loss that falls and overfits a little, with one point that diverged."""
    points = []
    for step in range(0, 301, 10):
        train = 1.1 + 1.6 * math.exp(-step / (60 + 8 * seed)) - 0.0009 * step + 0.05 * math.sin(step * (seed + 1.3))
        validation = 1.25 + 1.4 * math.exp(-step / 65) + 0.0000035 * (step - 180) ** 2 + 0.02 * seed
        points.append(LossPoint(step, train if step else math.nan, validation if step % 30 == 0 else None))
    return tuple(points)


def variant(name: str, scores: list[float], ensemble: float) -> VariantResult:
    mean = sum(scores) / len(scores)
    std = math.sqrt(sum((s - mean) ** 2 for s in scores) / (len(scores) - 1)) if len(scores) > 1 else None
    members = tuple(
        MemberResult(i, s, 180, f"model/iteration-10/{i}f3a9c0d21be", curve(i), cut_off=3 * i)
        for i, s in enumerate(scores)
    )
    return VariantResult(name, members, mean, std, ensemble)


def comparison(
    a: str, b: str, difference: float, half_width: float, verdict: Verdict | None, estimand: Estimand = "recipe",
    seeds: tuple[int, int] = (3, 0),
) -> ComparisonResult:  # fmt: skip
    """A comparison of 40 prompts whose noise is mostly seeds; without a verdict it has no interval."""
    known, undecided = verdict is not None, verdict == "undecided"
    p = 0.21 if undecided else 0.012
    return ComparisonResult(
        a, b, estimand, difference, difference - half_width if known else None, difference + half_width if known else None,
        0.95, p if known else None, p if known else None, verdict, seeds, 40, 31.5, NoiseParts(0.02, 0.013, 0.005),
        sought=abs(difference), power=0.31 if known else None, needed=Design(8, 80, 0.83) if undecided else None,
        influence=(Influence("Make it <rhyme>", 49, difference / 2), Influence("Sing it", 30, difference * 1.1)),
    )  # fmt: skip


def sample() -> Results:
    """Two variants over three seeds; the ensemble of the first is ahead of everything."""
    return Results(
        experiment="iteration-10-completions",
        question="Does training on the completion alone beat training on the whole text?",
        problem="prompt-recovery",
        metric="sharpened cosine",
        higher_is_better=True,
        rows=1200,
        untrained=0.6512,
        variants=(
            variant("completion", [0.7104, 0.7251, 0.7187], 0.7342),
            variant("whole-text", [0.6987, 0.7093, 0.7011], 0.7160),
        ),
        constants=(
            ConstantResult("Please improve the following text using the writing style of a poet", 0.6830),
            ConstantResult("Rewrite the text", 0.6120),
        ),
        dataset=DatasetStats(5400, 1310, 0.2426, 412.5, {"too long": 31, "duplicate": 204}),
        train_rows=4200,
        baseline="whole-text",
        delta=0.01,
        group_by="rewrite_prompt",
        comparisons=(
            comparison("completion", "whole-text", 0.0151, 0.0093, "better", seeds=(3, 3)),
            comparison("completion", "untrained", 0.0669, 0.0703, "undecided"),
            comparison("whole-text", "untrained", 0.0518, 0.0203, "better"),
            comparison("completion", "best constant", 0.0351, 0.0103, "better"),
            comparison("whole-text", "best constant", 0.0200, 0.0103, "better"),
            comparison("completion", "whole-text", 0.0182, 0.0093, "better", "ensemble", (3, 3)),
            comparison("whole-text", "untrained", 0.0648, 0.0121, "better", "ensemble"),
        ),
    )
