"""The other claims that a result makes: ensembles, families, looks, equivalence, constants, scores of 0 and 1."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from verdict.habits import rows_as_if_independent
from verdict.noise import BASE, MODELS, ROWS, Floats, NoiseModel, draw_sides
from verdict.rates import DIFFERENCE, OURS, Tally, called, judged, tally

from reseed.evaluation.statistics import Side, compare, cross_fitted, ensemble_side, holm, look_level, recipe_side
from reseed.recipe.seeds import LOOKS

CLASSES = 7
SHAPES = ((2, 2), (3, 3), (4, 4))  # initialisations × orders
PARTS = (
    (0.02, 0.02, 0.0),
    (0.03, 0.0, 0.0),
    (0.0, 0.03, 0.0),
    (0.02, 0.02, 0.02),
    (0.0, 0.0, 0.03),
)  # sd by each, and by both
INDEPENDENT, WITH_FIXED = "members as if independent", "with a model without seeds"
NOISE_OF_ROWS = NoiseModel("rows and recipes alone", seed_sds=(0.0, 0.0))
DELTAS = (0.06, 0.12)
CONSTANTS, CONSTANT_SCORE = 140, 0.03


def mean_ensembles(draw: np.random.Generator, count: int, model: int, groups: int, seeds: int) -> Tally:
    """Ensembles whose score is the mean of the members' scores."""
    sides, labels = draw_sides(MODELS[model], draw, count, seeds, groups)

    def ensemble(members: Floats) -> Side:
        return ensemble_side(members.mean(axis=0), (members.sum(axis=0) - members) / (seeds - 1))

    return tally({OURS: called([compare(ensemble(a), ensemble(b), labels) for a, b in zip(*sides, strict=True)])})


def class_ensembles(draw: np.random.Generator, count: int, groups: int, seeds: int) -> Tally:
    """Log loss of the mean of the members' probabilities, seven classes; the pseudo-values come from blends without one."""
    labels = np.repeat(np.arange(groups), ROWS)

    def ensemble(logits: Floats, answers: Floats) -> Side:
        own = logits + draw.normal(0, 0.4, (groups, CLASSES))[labels] + draw.normal(0, 0.15, (seeds, 1, CLASSES))
        own = np.exp(own + draw.normal(0, 0.8, (seeds, len(labels), CLASSES)))
        right = (own * answers).sum(axis=2) / own.sum(axis=2)
        return ensemble_side(np.log(right.mean(axis=0)), np.log((right.sum(axis=0) - right) / (seeds - 1)))

    def one() -> bool:
        logits = draw.normal(0, 1.2, (len(labels), CLASSES))
        answers = np.eye(CLASSES)[(logits + draw.gumbel(size=logits.shape)).argmax(axis=1)]
        return called([compare(ensemble(logits, answers), ensemble(logits, answers), labels)])[0]

    return tally({OURS: [one() for _ in range(count)]})


def families(draw: np.random.Generator, count: int, better: int, groups: int, seeds: int) -> Tally:
    """Four variants against one baseline, some of them better; how often any of the others is called."""
    sides, labels = draw_sides(BASE, draw, count, seeds, groups, sides=5)
    with_holm, without = [], []
    for baseline, *variants in sides.swapaxes(0, 1):
        shifts = [DIFFERENCE] * better + [0.0] * (4 - better)
        pairs = zip(variants, shifts, strict=True)
        ps = [compare(recipe_side(scores + shift), recipe_side(baseline), labels).p for scores, shift in pairs]
        with_holm.append(min(holm(ps)[better:]) < 0.05)
        without.append(min(ps[better:]) < 0.05)
    return tally({"Holm": with_holm, "each by itself": without})


def looks(draw: np.random.Generator, count: int, model: int, groups: int) -> Tally:
    """A look at each number of seeds that was declared, with what it may spend; and at 95 % each time."""
    (a, b), labels = draw_sides(MODELS[model], draw, count, LOOKS[-1], groups)
    declared, undeclared, by_rows = (np.zeros(count, bool) for _ in range(3))
    for before, seeds in pairwise((0, *LOOKS)):
        found = judged(a[:, :seeds], b[:, :seeds], labels, look_level(seeds, before, LOOKS[-1]))
        declared |= called(found)
        undeclared |= [one.p < 0.05 for one in found]
        by_rows |= rows_as_if_independent(a[:, :seeds], b[:, :seeds], labels)
    return tally({"declared looks": declared, "95 % at each look": undeclared, "rows as if independent": by_rows})


def split_seeds(draw: np.random.Generator, count: int, part: int, shape: int, groups: int) -> Tally:
    """Two equal recipes, each trained with every initialisation and every order; and taken for independent members; and the
    first with a model that was not trained."""
    inits, orders = SHAPES[shape]
    (a, b), labels = draw_sides(NOISE_OF_ROWS, draw, count, inits * orders, groups)
    fixed = b[:, 0].copy()
    for side in (a, b):
        for sd, size in zip(PARTS[part], ((inits, 1), (1, orders), (inits, orders)), strict=True):
            own = np.broadcast_to(draw.normal(0, sd, (count, *size)), (count, inits, orders))
            side += own.reshape(count, inits * orders, 1)
    crossed = [
        compare(recipe_side(x, (inits, orders)), recipe_side(y, (inits, orders)), labels)
        for x, y in zip(a, b, strict=True)
    ]
    with_fixed = [compare(recipe_side(x, (inits, orders)), Side(y), labels) for x, y in zip(a, fixed, strict=True)]
    return tally({OURS: called(crossed), WITH_FIXED: called(with_fixed), INDEPENDENT: called(judged(a, b, labels))})


def equivalence(draw: np.random.Generator, count: int, groups: int, seeds: int) -> Tally:
    """No difference beyond δ, said where the true difference is just δ, and where it is nil."""
    (a, b), labels = draw_sides(BASE, draw, count, seeds, groups)

    def said(truth: float, delta: float) -> list[bool]:
        return [-delta < one.low and one.high < delta for one in judged(a + truth, b, labels, level=0.9)]

    return tally({f"{truth} {delta}": said(truth, delta) for delta in DELTAS for truth in (delta, 0.0)})


def constants(draw: np.random.Generator, count: int) -> Tally:
    """The best of 140 constants, all worth 0.03, on 30 groups: as the rows that it was chosen by score it, and cross-fitted."""
    labels = np.repeat(np.arange(30), ROWS)

    def one() -> tuple[float, float]:
        scores = CONSTANT_SCORE + draw.normal(0, 0.06, (CONSTANTS, 30))[:, labels]
        scores += draw.normal(0, 0.1, scores.shape)
        return float(scores.mean(axis=1).max()), float(cross_fitted(scores, labels).mean())

    found = np.array([one() for _ in range(count)])
    return tally({"chosen on the test rows": found[:, 0], "cross-fitted": found[:, 1]})


def binary(draw: np.random.Generator, count: int, easy: bool, groups: int, seeds: int) -> Tally:
    """Scores of 0 and 1 in few groups; where most are 1 there may be no variance, and nothing is called."""
    labels = np.repeat(np.arange(groups), ROWS)
    logits = draw.normal(3.0 if easy else 0.0, 1, (count, 1, groups))[..., labels]
    logits = logits + draw.normal(0, 1, (count, 1, len(labels)))

    def side() -> Floats:
        own = logits + draw.normal(0, 0.4, (count, 1, groups))[..., labels] + draw.normal(0, 0.1, (count, seeds, 1))
        return (draw.random(own.shape) < 1 / (1 + np.exp(-own))).astype(float)

    a, b = side(), side()
    return tally({OURS: called(judged(a, b, labels)), "rows": rows_as_if_independent(a, b, labels)})
