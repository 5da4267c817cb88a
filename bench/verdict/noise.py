"""Scores as training gives them, drawn from noise models of which the truth is known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Labels = NDArray[np.intp]
ROWS = 4  # in a group, on average


@dataclass(frozen=True)
class NoiseModel:
    """What moves a score. Each recipe has its own effect on a group, which its seeds share; the rest differs by seed."""

    name: str
    seed_sds: tuple[float, float] = (0.015, 0.015)  # of A and of B
    row_sd: float = 0.25
    within: float = 0.0  # correlation of a seed's row noise within a group
    recipe_sd: float = 0.076  # of a recipe's effect on a group
    paired: float = 0.0  # correlation of A's seed k and B's
    log_normal: bool = False
    zipf: bool = False  # the r-th largest group has 1/r of the largest's rows


BASE = NoiseModel("seeds 0.015")
MODELS = (
    BASE,
    NoiseModel("seeds 0.03", seed_sds=(0.03, 0.03)),
    NoiseModel("row noise correlated 0.3 within a group", within=0.3),
    NoiseModel("exact A/A: no recipe effects", recipe_sd=0.0),
    NoiseModel("paired seeds, correlation 0.5", paired=0.5),
    NoiseModel("log-normal scores", log_normal=True),
    NoiseModel("unequal seeds, 0.01 and 0.03", seed_sds=(0.01, 0.03)),
    NoiseModel("Zipf-sized groups", zipf=True),
    NoiseModel("quiet rows, 0.05", row_sd=0.05),
)
BEYOND = NoiseModel(
    "beyond the nine: unequal seeds, 0.005 and 0.045", seed_sds=(0.005, 0.045)
)  # few seeds cannot tell this
ALL = (*MODELS, BEYOND)


def labels_of(model: NoiseModel, groups: int) -> Labels:
    """The group of each row."""
    sizes = np.full(groups, ROWS)
    if model.zipf:
        shares = 1 / np.arange(1, groups + 1)
        sizes = np.maximum(1, np.round(ROWS * groups * shares / shares.sum())).astype(int)
    return np.repeat(np.arange(groups), sizes)


def draw_sides(
    model: NoiseModel, draw: np.random.Generator, count: int, seeds: int, groups: int, sides: int = 2
) -> tuple[Floats, Labels]:
    """Scores of shape (sides, count, K, n) without a difference, and their groups. Sides after the second are as B."""
    labels = labels_of(model, groups)
    shape = (sides, count, seeds, len(labels))
    seed = draw.standard_normal((*shape[:3], 1))
    noise = draw.standard_normal(shape)
    if model.within:
        of_group = draw.standard_normal((*shape[:3], groups))[..., labels]
        noise = (1 - model.within) ** 0.5 * noise + model.within**0.5 * of_group
    if model.paired:
        for each in (seed, noise):
            each[1:] = model.paired * each[:1] + (1 - model.paired**2) ** 0.5 * each[1:]
    sds = np.array([model.seed_sds[min(side, 1)] for side in range(sides)]).reshape(-1, 1, 1, 1)
    scores = sds * seed + model.row_sd * noise
    if model.recipe_sd:
        scores += model.recipe_sd * draw.standard_normal((sides, count, 1, groups))[..., labels]
    return (log_normal(scores, model) if model.log_normal else scores), labels


def log_normal(scores: Floats, model: NoiseModel) -> Floats:
    """The same spread, skewed: the exponential of the standardised score."""
    sd = (model.seed_sds[0] ** 2 + model.row_sd**2 + model.recipe_sd**2) ** 0.5
    skewed: Floats = sd * (np.exp(scores / sd) - np.e**0.5) / ((np.e - 1) * np.e) ** 0.5
    return skewed


def group_sums(scores: Floats, labels: Labels) -> Floats:
    """Sums over the rows of each group, shape (…, G), of rows that lie group by group."""
    return np.add.reduceat(scores, np.flatnonzero(np.diff(labels, prepend=-1)), axis=-1)
