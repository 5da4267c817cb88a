"""Reading a recipe: its file, what it says of the profile, and what the command line says."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from pathlib import Path
from typing import Any

from reseed.mistakes import mistake_list, nearest
from reseed.problems import check_known, find_problem
from reseed.recipe.by_profile import on_profile, profile_mistakes
from reseed.recipe.recipe import OF_VARIANTS, VARIABLE, Recipe, examine
from reseed.recipe.stages import stage_mistakes
from reseed.recipe.values import merge, parse_override, read_yaml
from reseed.records import ReseedError
from reseed.settings import RECIPES


def load_recipe(name: str, overrides: tuple[str, ...] = (), profile: str | None = None) -> Recipe:
    """The recipe in file `name`, or the shipped one of that name, with its changes for the profile, and `a.b=c` overrides
    applied last.

    Raises ReseedError with every mistake at once: key, value seen, what was wanted, nearest valid name.
    """
    path = find_recipe(name)
    values = read_yaml(path)
    of_profiles = [text for text in overrides if text.startswith("profiles")]
    # Any other override is meant for this profile: it may contradict what the recipe says of another.
    elsewhere = profile_mistakes(reduce(override, of_profiles, values), profile)
    values = reduce(override, overrides, values)
    values, unknown = with_problems(values, path.parent)
    recipe, wrong = examine(on_profile(values, profile), elsewhere)
    if recipe is not None and not wrong:
        wrong = stage_mistakes(recipe)
    if recipe is None or wrong or unknown:
        raise ReseedError(mistake_list(f"recipe {path.name}", [*unknown, *wrong]))
    return recipe


def with_problems(values: dict[str, Any], folder: Path) -> tuple[dict[str, Any], list[str]]:
    """The recipe's values with the modules of its problem and of its variants' in the place of their names; and which
    problems are not known."""
    unknown: list[str] = []

    def found(part: dict[str, Any]) -> dict[str, Any]:
        if not isinstance(problem := part.get("problem"), str):
            return part
        try:
            module = find_problem(problem, folder)
            check_known(module)
        except ReseedError as error:
            unknown.append(str(error))
            return part
        return {**part, "problem": module}

    values, variants = found(values), values.get("variants")
    if isinstance(variants, dict):
        values["variants"] = {name: found(own) if isinstance(own, dict) else own for name, own in variants.items()}
    return values, list(dict.fromkeys(unknown))


def find_recipe(name: str) -> Path:
    """A YAML file by its path, or a shipped recipe by its name."""
    for path in (Path(name), RECIPES / f"{name}.yaml"):
        if path.is_file():
            return path
    shipped = sorted(p.stem for p in RECIPES.glob("*.yaml"))
    raise ReseedError(
        f"recipe '{name}': no such file, and no recipe of that name{nearest(name, shipped)}; there is {', '.join(shipped)}"
    )


def override(values: dict[str, Any], text: str) -> dict[str, Any]:
    """Apply `a.b=c` to a recipe, and to each of its variants and profiles, whose changes would hide it otherwise."""
    new = parse_override(text)
    if text.partition("=")[0].strip() == "variants":
        return {**values, **new}  # the whole set is replaced
    if isinstance(seeds := new.get("seeds"), dict) and is_other_form(as_mapping(values.get("seeds")), seeds):
        return {**values, **new}
    changed = merge(values, new)
    for key, may in (("profiles", VARIABLE), ("variants", OF_VARIANTS)):
        changes = {part: value for part, value in new.items() if part in may}
        if changes and isinstance(changed.get(key), dict):
            changed[key] = {
                name: merge(own, changes) if isinstance(own, dict) else own for name, own in changed[key].items()
            }
    return changed


def is_other_form(old: dict[str, Any], new: dict[str, Any]) -> bool:
    """True if seeds were split and are now added at looks, or the other way round: then nothing is merged."""
    forms = {"start", "most"}, {"initialisation", "order"}
    return any(set(old) & one and set(new) & other for one, other in (forms, forms[::-1]))


def as_mapping(value: object) -> dict[str, Any]:
    """The value if it is a mapping, else an empty one."""
    return value if isinstance(value, dict) else {}


def split_overrides(overrides: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The recipe's overrides, and the profile's, which begin with `profile.`. Setting `model` also unsets the student."""
    own = tuple(text for text in overrides if not text.startswith("profile."))
    place = tuple(text.removeprefix("profile.") for text in overrides if text.startswith("profile."))
    if any(text.partition("=")[0].strip() == "model" for text in own):
        place = ("roles.student=null", *place)
    return own, place
