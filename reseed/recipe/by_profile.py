"""What a recipe says of single profiles: `profiles: {gpu: {training: …}}`, laid on the recipe before its variants."""

from __future__ import annotations

from typing import Any

from reseed.mistakes import nearest
from reseed.recipe.profile import PROFILES
from reseed.recipe.recipe import attempt, variable
from reseed.recipe.values import merge


def on_profile(values: dict[str, Any], profile: str | None) -> dict[str, Any]:
    """The recipe's values with what differs on a profile laid on them; a variant's own still come after."""
    sections = values.get("profiles")
    changes = sections.get(profile) if isinstance(sections, dict) else None
    return merge(values, variable(changes)) if isinstance(changes, dict) else values


def profile_mistakes(values: dict[str, Any], profile: str | None) -> list[str]:
    """What is wrong with the recipe's `profiles`, also with those that it does not run on now."""
    sections = values.get("profiles")
    known = sorted({path.stem for path in PROFILES.glob("*.yaml")} | ({profile} if profile else set()))
    shared = {key: value for key, value in values.items() if key not in ("profiles", "variants", "baseline")}
    before, wrong = attempt(shared)[1], list[str]()
    for name, changes in sections.items() if isinstance(sections, dict) else ():
        if name not in known and (meant := nearest(str(name), known)):  # else a profile of the user's own, elsewhere
            wrong.append(f"profiles.{name}: no profile of that name{meant}; there is {', '.join(known)}")
        if isinstance(changes, dict):
            lines = attempt(merge(shared, variable(changes)))[1]
            wrong += [f"profiles.{name}.{line}" for line in lines if line not in before]
    return wrong
