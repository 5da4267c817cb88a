"""What `reseed plan` says about memory: what training needs and what there is, and the bytes of each ZeRO stage."""

from __future__ import annotations

from collections.abc import Collection

from flows.terminal import open_console
from reseed.recipe.profile import Profile
from reseed.recipe.recipe import Recipe
from reseed.records import ReseedError
from reseed.text import visible


def print_room(recipe: Recipe, profile: Profile, names: Collection[str]) -> int:
    """Print what training these variants needs and what there is. Raises ReseedError if it certainly does not fit."""
    from reseed.recipe.stages import variants_of
    from reseed.training.memory.fits import fit_of, needs_of
    from reseed.training.memory.room import refuse_workers, room_of
    from reseed.training.memory.smaller import refuse_unfit

    room = room_of(profile)
    variants = {name: variant for name, variant in variants_of(recipe).items() if name in names}
    fits = [fit_of(need, room) for need in needs_of(variants, profile)]
    for fit in fits:
        print(visible(str(fit)))
    try:
        refuse_workers(profile)
    except ReseedError as error:
        print(visible(f"not here: {error}"))  # a plan may be for another machine
    refuse_unfit(fits, room)
    return 0


def print_memory(recipe: Recipe, profile: Profile) -> int:
    """Print what training will take, once for variants that train the same way."""
    from reseed.models.configs import fetched_config, is_hub, shape_here
    from reseed.recipe.stages import variants_of
    from reseed.reporting.memory import memory_table
    from reseed.training.memory.fits import fetch_advice, needs_of
    from reseed.training.memory.plan import plan_memory

    for need in needs_of(variants_of(recipe), profile):
        name, *others = need.variants
        try:
            if is_hub(need.spec.name):
                fetched_config(need.spec.name)
            elif shape_here(need.spec) is None:
                raise ReseedError(fetch_advice(need.spec))  # a plan fetches no weights
        except ReseedError as error:
            print(visible(f"{name}: not planned: {error}"))
            continue
        plans = plan_memory(need.spec, need.settings, need.rows, need.labels, dict.fromkeys((0, 1, 2, 3), need.workers))
        rows = f"{need.rows} rows × {need.settings.max_tokens} tokens a rank"
        title = f"{name}: {need.spec.name}, {need.workers} ranks, {rows}"
        open_console().print(memory_table(title, plans))
        for other in others:
            print(visible(f"{other}: as {name}"))
    return print_room(recipe, profile, recipe.variants)
