"""Models by the commit that their hub's name means today, before any key is made of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from reseed.models.configs import is_hub
from reseed.network.commits import commit_of, known_commit
from reseed.recipe.profile import Profile
from reseed.recipe.recipe import Recipe


@dataclass(frozen=True)
class Pinned:
    """A recipe and a profile whose hub models are named by commit, but for those whose commit is `unknown`."""

    recipe: Recipe
    place: Profile
    unknown: tuple[str, ...]


def pin(recipe: Recipe, place: Profile) -> Pinned:
    """Ask the hub for the commit of every model that the recipe needs on this profile, once each."""
    pinned, roles = cache(pinned_name), place.roles
    used = {"embedder": roles.embedder, "student": roles.student}
    if any(recipe.variant(name).data.train is None for name in recipe.variants):
        used["generator"] = roles.generator
    specs = {role: spec.model_copy(update={"name": pinned(spec.name)}) for role, spec in used.items() if spec}
    names = [spec.name for spec in specs.values()]
    if roles.student is None:
        recipe = with_models(recipe, pinned)
        names += models_of(recipe)
    unknown = dict.fromkeys(name for name in names if is_hub(name) and known_commit(name) is None)
    return Pinned(recipe, place.model_copy(update={"roles": roles.model_copy(update=specs)}), tuple(unknown))


def pinned_name(name: str) -> str:
    """A hub id with its commit, if that is known; any other name as it is."""
    commit = commit_of(name, "model") if is_hub(name) else None
    return f"{name.partition('@')[0]}@{commit}" if commit else name


def models_of(recipe: Recipe) -> list[str]:
    """The models that a recipe and its variants name."""
    named = [recipe.model, *(changes.get("model") for changes in recipe.variants.values())]
    return [name for name in named if name is not None]


def with_models(recipe: Recipe, pinned: Callable[[str], str]) -> Recipe:
    """The recipe, its own model and those of its variants named by commit."""
    variants = {
        name: {**changes, "model": pinned(changes["model"])} if changes.get("model") else changes
        for name, changes in recipe.variants.items()
    }
    model = pinned(recipe.model) if recipe.model is not None else None
    return recipe.model_copy(update={"model": model, "variants": variants})
