"""What a recipe changes on single profiles: `profiles: {gpu: {training: …}}`, applied before its variants."""

from __future__ import annotations

from typing import Any

from reseed.mistakes import nearest
from reseed.recipe.profile import PROFILES
from reseed.recipe.recipe import try_recipe, variable_part
from reseed.recipe.values import merge


def on_profile(values: dict[str, Any], profile: str | None) -> dict[str, Any]:
    """The recipe's values with a profile's changes applied; a variant's changes come after."""
    sections = values.get("profiles")
    changes = sections.get(profile) if isinstance(sections, dict) else None
    return merge(values, variable_part(changes)) if isinstance(changes, dict) else values


def profile_mistakes(values: dict[str, Any], profile: str | None) -> list[str]:
    """What is wrong with the recipe's `profiles`, including those that it does not run on now."""
    sections = values.get("profiles")
    known = sorted({path.stem for path in PROFILES.glob("*.yaml")} | ({profile} if profile else set()))
    shared = {key: value for key, value in values.items() if key not in ("profiles", "variants", "baseline")}
    before, wrong = try_recipe(shared)[1], list[str]()
    for name, changes in sections.items() if isinstance(sections, dict) else ():
        if name not in known and (meant := nearest(str(name), known)):  # else it may be a profile of the user's own
            wrong.append(f"profiles.{name}: no profile of that name{meant}; there is {', '.join(known)}")
        if isinstance(changes, dict):
            lines = try_recipe(merge(shared, variable_part(changes)))[1]
            wrong += [f"profiles.{name}.{line}" for line in lines if line not in before]
    return wrong
