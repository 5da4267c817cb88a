"""What a flow works from: the recipe, its variants, the profile, and the planned steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from reseed.evaluation.experiment import Evidence, check_comparable
from reseed.line import Line, plan_line
from reseed.profile import Profile, load_profile
from reseed.recipe import Recipe, load_recipe, split_overrides
from reseed.records import Artifact, Member
from reseed.rehearsal import rehearse
from reseed.stages import refuse_leaks, scored_variants, variants_of
from reseed.store import ArtifactStore
from reseed.training.fits import fit_of, needs_of, refuse_unfit
from reseed.training.room import refuse_workers, room_of
from tasks.leftovers import end_together
from tasks.mistakes import quiet_mistakes
from tasks.predict import Question
from tasks.run_once import log


@dataclass(frozen=True)
class Plan:
    """A recipe on a profile."""

    recipe: Recipe
    profile: Profile
    variants: Mapping[str, Recipe]
    line: Line

    @property
    def baseline(self) -> str:
        """The variant that the others are compared with."""
        return self.recipe.first


def load_plan(recipe: str, profile: str, overrides: Sequence[str]) -> Plan:
    """Read and check everything before anything runs. An override `profile.a=b` is the profile's, others the recipe's."""
    quiet_mistakes()
    end_together()
    own, place = split_overrides(overrides)
    where = load_profile(profile, place)
    loaded = load_recipe(recipe, own, where.name)
    store = ArtifactStore(where.store)
    plan = Plan(loaded, where, variants_of(loaded), plan_line(loaded, where, store))
    for note in rehearse(loaded, store):
        log().warning(note)
    check_room(plan, store)
    return plan


def check_room(plan: Plan, store: ArtifactStore) -> None:
    """Refuse training that certainly does not fit, with the settings that would. Variants in the store are not trained."""
    waiting = {member.variant for member, step in plan.line.members.items() if store.find(step.artifact) is None}
    if not waiting:
        return
    refuse_workers(plan.profile)
    room = room_of(plan.profile)
    variants = {name: variant for name, variant in plan.variants.items() if name in waiting}
    fits = [fit_of(need, room, fetch=True) for need in needs_of(variants, plan.profile)]
    refuse_unfit(fits, room)
    for fit in fits:
        if fit.doubtful:
            log().warning("%s", fit)


def questions_of(plan: Plan, partitions: Mapping[str, Artifact], adapters: Mapping[Member, Artifact]) -> list[Question]:
    """The untrained student first, then every member."""
    untrained = Question(plan.variants[plan.baseline], partitions[plan.baseline], None)
    trained = [Question(plan.variants[m.variant], partitions[m.variant], a) for m, a in adapters.items()]
    return [untrained, *trained]


def scored(plan: Plan, adapters: Mapping[Member, Artifact]) -> dict[Member, Artifact]:
    """The adapters with a result, in the recipe's order; the others are stages that these went on from."""
    names = scored_variants(plan.recipe)
    return {member: adapters[member] for member in plan.recipe.members() if member.variant in names}


def stored_start(plan: Plan, member: Member) -> Artifact | None:
    """The adapter of an earlier run that a member goes on from, found while the line was planned."""
    return plan.line.members[member].inputs.get("start")


def check_rows(plan: Plan, partitions: Mapping[str, Artifact]) -> None:
    """Refuse, before anything is trained, stages whose rows another stage holds out, and variants that are scored on
    different rows."""
    store = ArtifactStore(plan.profile.store)
    refuse_leaks(store, plan.variants, partitions)
    names = dict.fromkeys([plan.baseline, *scored_variants(plan.recipe)])
    check_comparable(store, {name: partitions[name] for name in names})


def evidence_of(
    plan: Plan,
    partitions: Mapping[str, Artifact],
    adapters: Mapping[Member, Artifact],
    predictions: Sequence[Artifact],
) -> Evidence:
    """Everything that the result rests on."""
    names = [plan.baseline, *(member.variant for member in adapters)]
    ordered = {name: partitions[name] for name in names}
    return Evidence(
        problem=plan.recipe.problem,
        embedder=plan.profile.roles.embedder,
        constants=plan.recipe.constants,
        curated=plan.line.curated[plan.baseline].artifact,
        partitions=ordered,
        adapters=dict(adapters),
        predictions=dict(zip(adapters, predictions[1:], strict=True)),
        untrained=predictions[0],
    )
