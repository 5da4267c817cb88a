"""The lines that one run answers one after another: of more seeds, or of other splits of the rows. Each knows the one before.

All their keys are made at once: what changes while the first one runs, such as a model's folder, must not give later ones
another model.
"""

from __future__ import annotations

from copy import copy

from reseed.line import Line
from reseed.recipe.recipe import Recipe, split_by
from reseed.recipe.stages import training_order, variants_of

OF_SEEDS = ("ensemble", "results", "report")  # what another number of seeds changes
OF_SOURCES = ("source", "shards", "rows", "curated", "stored_start")  # what another split of the rows does not


def each_look(line: Line) -> list[Line]:
    """The line at each number of seeds that the recipe declares, from its own on; itself if it declares none."""
    lines = [line]
    for look in line.recipe.seeds.looks:
        if look > len(line.recipe.seeds):
            before = lines[-1]
            kept = {what: made for what, made in before.known.items() if what[0] not in OF_SEEDS}
            recipe = before.recipe.model_copy(update={"seeds": before.recipe.seeds.at(look)})
            lines.append(after(before, recipe, kept))
    return lines


def each_split(line: Line) -> list[Line]:
    """The line at each split that the recipe names; itself if it names none. Nothing is generated or curated anew."""
    lines = [line]
    for seed in line.recipe.splits[1:]:
        kept = {what: made for what, made in lines[-1].known.items() if what[0] in OF_SOURCES}
        lines.append(after(lines[-1], split_by(line.recipe, seed), kept))
    return lines


def after(before: Line, recipe: Recipe, known: dict[tuple[object, ...], object]) -> Line:
    """The line of a recipe whose result has that of another among its inputs. What is `known` is not made again."""
    line = copy(before)
    line.earlier, line.recipe, line.known = before, recipe, known
    line.variants, line.members = variants_of(recipe), training_order(recipe)
    line.steps()
    return line
