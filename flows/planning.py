"""Planning: a recipe's line, read and checked before anything runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from reseed.evaluation.experiment import check_comparable
from reseed.in_turn import each_look, each_split
from reseed.leaks import refuse_leaks
from reseed.line import Line, plan_line
from reseed.notes import notes_of
from reseed.recipe.profile import load_profile
from reseed.recipe.reading import load_recipe, split_overrides
from reseed.records import ReseedError
from reseed.rehearsal import rehearse
from reseed.store.artifacts import ArtifactStore
from reseed.training.memory.fits import fit_of, needs_of
from reseed.training.memory.room import refuse_workers, room_of
from reseed.training.memory.smaller import refuse_unfit
from tasks.run_once import log

Say = Callable[[str], None]


def read_line(recipe: str, profile: str, overrides: Sequence[str], say: Say | None = None) -> Line:
    """Plan every step and key. Raises all mistakes at once; what is only doubtful goes to `say`, by default the log.

    Overrides that begin with `profile.` are for the profile, others for the recipe.
    """
    say = say or log().warning
    own, where = split_overrides(overrides)
    place = load_profile(profile, where)
    line = plan_line(load_recipe(recipe, own, place.name), place, ArtifactStore(place.store))
    refuse_unpinned(line)
    for note in [*notes_of(line), *rehearse(line)]:
        say(note)
    check_room([line], say)
    return line


def in_turn(line: Line, until_decided: bool, say: Say | None = None) -> list[Line]:
    """The line at each split of the rows; where seeds are added until the question is decided, at each look; else itself."""
    say = say or log().warning
    if not until_decided:
        return with_room(each_split(line), say)
    if line.recipe.splits:
        raise ReseedError(
            f"recipe '{line.recipe.name}': several splits, to which no seeds can be added; leave --until-decided out, or set "
            "splits: [] and seeds: {start: 3, most: 10}"
        )
    if not line.recipe.seeds.looks:
        raise ReseedError(
            f"recipe '{line.recipe.name}': its seeds are fixed, so none can be added until it is decided; wanted "
            "seeds: {start: 3, most: 10}. The looks have to be declared before the first one, as each adds to the chance of "
            "a false call"
        )
    return with_room(each_look(line), say)


def refuse_unpinned(line: Line) -> None:
    """Refuse to run models whose commit is not known: the hub may give another one than the keys will be taken for."""
    if line.unpinned:
        raise ReseedError(
            f"model '{line.unpinned[0]}': the hub cannot be reached and never was asked from here, so its commit is not "
            "known; name one, as in owner/name@commit, check the network, or choose --profile laptop, which needs no hub"
        )


def with_room(lines: list[Line], say: Say) -> list[Line]:
    """The lines, once the members of all of them would fit: those of the first may be stored, and were not looked at then."""
    if not waiting_variants(lines[:1]):
        check_room(lines, say)
    return lines


def check_room(lines: Sequence[Line], say: Say) -> None:
    """Refuse training that certainly does not fit, and name settings that would. Variants in the store do not count."""
    line, waiting = lines[0], waiting_variants(lines)
    if not waiting:
        return
    refuse_workers(line.place)
    room = room_of(line.place)
    variants = {name: variant for name, variant in line.variants.items() if name in waiting}
    fits = [fit_of(need, room, fetch=True) for need in needs_of(variants, line.place)]
    refuse_unfit(fits, room)
    for fit in fits:
        if fit.doubtful:
            say(str(fit))


def waiting_variants(lines: Sequence[Line]) -> set[str]:
    """The variants of which a member is not stored yet."""
    stored = lines[0].store.finished({step.artifact for one in lines for step in one.adapters()})
    return {m.variant for one in lines for m in one.members if one.adapter(m).artifact not in stored}


def check_rows(line: Line) -> None:
    """Refuse stages that train on rows that another holds out, and variants that are scored on different rows."""
    partitions = {name: line.partition(name).artifact for name in line.variants}
    refuse_leaks(line.store, line.variants, partitions)
    names = dict.fromkeys([line.recipe.first, *line.scored])
    check_comparable(line.store, {name: partitions[name] for name in names})
