"""What each `reseed` command does. Each imports the heavy packages that it needs itself, so that `plan` answers at once."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from flows.terminal import open_console
from reseed.credentials import without_credentials
from reseed.records import ReseedError, run_name
from reseed.text import visible

if TYPE_CHECKING:
    from reseed.recipe.profile import Profile
    from reseed.store.artifacts import ArtifactStore


def up(options: argparse.Namespace) -> int:
    """Start the local server, pool and worker."""
    from infra.local.keeping import stay
    from infra.local.server import up as start

    if options.stay:
        stay(Path.cwd(), options.port, partial(print, flush=True))
        return 0
    server = start(Path.cwd(), options.port)
    print(f"dashboard: {server.ui_url} (its login asks once for what .reseed/secret holds)")
    print('for `prefect …` on this command line: eval "$(reseed env)"')
    return 0


def down(options: argparse.Namespace) -> int:
    """Stop the local server, its worker and its flow runs."""
    from infra.local.server import down as stop

    stop(Path.cwd())
    return 0


def env(options: argparse.Namespace) -> int:
    """Print what a shell needs to use the local server."""
    from infra.local.server import running
    from infra.local.settings import shell_lines

    if (server := running(Path.cwd())) is None:
        raise ReseedError(f"no Prefect server of {Path.cwd()} is up with its key: `reseed up` there starts it")
    print(shell_lines(server, os.environ))
    return 0


def plan(options: argparse.Namespace) -> int:
    """Print every step and whether the store has it."""
    from flows.plan_memory import print_memory, print_room
    from reseed.in_turn import each_split
    from reseed.line import different, plan_line
    from reseed.notes import notes_of
    from reseed.recipe.pins import pin
    from reseed.recipe.profile import load_profile
    from reseed.recipe.reading import load_recipe, split_overrides
    from reseed.rehearsal import rehearse
    from reseed.store.artifacts import ArtifactStore

    own, place = split_overrides(options.overrides)
    profile = load_profile(options.profile, place)
    recipe = load_recipe(options.recipe, own, profile.name)
    if options.memory:
        pinned = pin(recipe, profile)
        return print_memory(pinned.recipe, pinned.place)
    store = ArtifactStore(profile.store)
    line = plan_line(recipe, profile, store)
    notes = [*notes_of(line), *rehearse(line)]
    lines = each_split(line)
    steps = different(step for one in lines for step in one.steps())
    begins = {
        one.partition(one.recipe.first).artifact: f"split {number} of {len(lines)}, data.seed {one.recipe.data.seed}:"
        for number, one in enumerate(lines, 1)
        if len(lines) > 1
    }
    stored = store.finished(step.artifact for step in steps)
    joined = {step.artifact for step in line.all_shards()} - {step.artifact for step in line.needed_shards()}
    for step in steps:
        missing = "not needed" if step.artifact in joined else "would run"
        state = "in the store" if step.artifact in stored else missing
        seed = f" seed {run_name(step.seed, step.spec.get('order'))}" if step.seed is not None else ""
        if step.artifact in begins:
            print(begins[step.artifact])
        print(f"{state:13} {step.verb:10} {visible(str(step.artifact))}{seed}")
    print(*(visible(f"note: {note}\n") for note in notes), sep="", end="")
    return print_room(
        line.recipe, line.place,
        {m.variant for one in lines for m in one.members if one.adapter(m).artifact not in stored},
    )  # fmt: skip


def run(options: argparse.Namespace) -> int:
    """Run the experiment here, on the project's own Prefect server if it is up, else on a temporary one."""
    from infra.local.server import running
    from infra.local.settings import environment

    whole = environment(Path.cwd(), running(Path.cwd()))
    os.environ.clear()  # a user's own PREFECT_* must not lead this run to another server
    os.environ.update(whole)
    from flows.experiment import run_experiment
    from flows.planning import in_turn, read_line
    from reseed.reporting.tables import results_table
    from reseed.reporting.verdict import verdict
    from tasks.leftovers import end_together, start_server

    # A user's mistake shows before anything starts; what is only doubtful, the flow says.
    refuse_credentials(options.overrides)
    in_turn(read_line(options.recipe, options.profile, options.overrides, lambda note: None), options.until_decided)
    end_together()  # before the server starts: it ends with this process too
    start_server()
    found = run_experiment(options.recipe, options.profile, options.overrides, options.until_decided)
    console = open_console()
    console.print(results_table(found))
    console.print(verdict(found), markup=False)
    return 0


def refuse_credentials(overrides: Sequence[str]) -> None:
    """Refuse what opens a door on the command line: Prefect's database keeps a run's parameters."""
    for override in overrides:
        if (shown := without_credentials(override)) != override:
            raise ReseedError(
                f"--set {shown}: it holds a credential, which Prefect would keep with the run; write the address into a recipe "
                "file of your own, or keep the password in ~/.netrc"
            )


def fetch(options: argparse.Namespace) -> int:
    """Fetch and convert the profile's models, and the students of a recipe: the profile's, or its variants' own."""
    from reseed.models.cache import materialise
    from reseed.recipe.pins import pinned_name
    from reseed.recipe.profile import load_profile
    from reseed.recipe.reading import load_recipe, split_overrides

    own, place = split_overrides(options.overrides)
    if own and options.recipe is None:
        raise ReseedError(f"--set {own[0]}: no recipe is named; name it, or wanted profile.KEY=VALUE")
    profile = load_profile(options.profile, place)
    wanted = [("generator", profile.roles.generator), ("embedder", profile.roles.embedder)]
    if options.recipe is not None:
        recipe = load_recipe(options.recipe, own, profile.name)
        students = [profile.student(recipe.variant(name).model) for name in recipe.variants]
        wanted += [("student", spec) for spec in dict.fromkeys(students)]
    elif profile.roles.student is not None:
        wanted.append(("student", profile.roles.student))
    for role, spec in wanted:
        pinned = spec.model_copy(update={"name": pinned_name(spec.name)})
        print(visible(f"{role}: {materialise(pinned).name}"), flush=True)
    return 0


def doctor(options: argparse.Namespace) -> int:
    """Print what is here and what is missing; 1 if something is wrong."""
    from itertools import chain

    from reseed.doctor import examine, verify

    profile, wrong = profile_of(options), 0
    for finding in chain(examine(profile), verify(profile) if options.verify else ()):
        print(visible(f"{finding.thing:10} {finding.state}"), flush=True)
        if finding.fix:
            print(visible(f"{'':10} → {finding.fix}"), flush=True)
        wrong += bool(finding.fix)
    return 1 if wrong else 0


def profile_of(options: argparse.Namespace) -> Profile:
    """The profile, for a command that reads no recipe."""
    from reseed.recipe.profile import load_profile
    from reseed.recipe.reading import split_overrides

    own, place = split_overrides(options.overrides)
    if own:
        raise ReseedError(
            f"--set {own[0]}: no recipe is read here; wanted profile.KEY=VALUE, as in profile.store=FOLDER"
        )
    return load_profile(options.profile, place)


def open_store(options: argparse.Namespace) -> ArtifactStore:
    """The profile's store."""
    from reseed.store.artifacts import ArtifactStore

    return ArtifactStore(profile_of(options).store)


def results(options: argparse.Namespace) -> int:
    """Print the newest result of an experiment."""
    from reseed.evaluation.experiment import latest_results

    found = latest_results(open_store(options), options.name)
    if options.json:
        print(json.dumps(found.to_json(), indent=2, ensure_ascii=False))
        return 0
    from reseed.reporting.tables import results_table
    from reseed.reporting.verdict import verdict

    console = open_console()
    console.print(results_table(found))
    console.print(verdict(found), markup=False)
    return 0


def compare(options: argparse.Namespace) -> int:
    """Print whether A is better than B, from the rows' scores in the store."""
    from reseed.evaluation.stored_sides import compare_stored
    from reseed.reporting.verdict import noun, sentence, which_split

    found, about = compare_stored(open_store(options), options.a, options.b, options.delta)
    if options.json:
        print(json.dumps(found.to_json(), indent=2, ensure_ascii=False))
    else:
        alone = f" {which_split(about)}." if about.splits else ""
        open_console().print(sentence(found, noun(about.group_by)) + alone, markup=False)
    return 0


def power(options: argparse.Namespace) -> int:
    """Print what a recipe's design can see, and the cheapest that sees a wanted difference."""
    from flows.power import group_name, planned_design, power_lines, wanted_difference
    from reseed.recipe.profile import load_profile
    from reseed.recipe.reading import load_recipe, split_overrides
    from reseed.store.artifacts import ArtifactStore

    own, place = split_overrides(options.overrides)
    profile = load_profile(options.profile, place)
    recipe = load_recipe(options.recipe, own, profile.name)
    difference = wanted_difference(recipe, options.difference)
    design = planned_design(recipe, ArtifactStore(profile.store), options.earlier, options.spread, options.groups)
    print(*(visible(line) for line in power_lines(design, difference, group_name(recipe))), sep="\n")
    return 0


def report(options: argparse.Namespace) -> int:
    """Print where the page of an experiment's newest result is, made again if reseed writes better ones by now."""
    from reseed.evaluation.experiment import latest
    from reseed.steps import make_step
    from reseed.steps.score import report_step

    store = open_store(options)
    pages = make_step(store, report_step(latest(store, options.name)))
    print(store.fetch(pages) / "report.html")
    return 0


def export(options: argparse.Namespace) -> int:
    """Copy an adapter or answers out of the store, or merge an adapter."""
    from reseed.export import export_artifact, find_exported, merge_adapter

    store = open_store(options)
    artifact = find_exported(store, options.artifact)
    if not options.merge:
        print("\n".join(f"{options.folder}/{name}" for name in export_artifact(store, artifact, options.folder)))
        return 0
    found = merge_adapter(store, artifact, options.folder, options.base)
    print(
        f"{options.folder}: the adapter moves the logits by {found.adapter_shift:.4f} on average, "
        f"merging it by {found.merge_error:.4f}"
    )
    return 0


def data_list(options: argparse.Namespace) -> int:
    """Print every dataset version."""
    from rich.table import Table
    from rich.text import Text

    from reseed.data.sources import DATASET

    store = open_store(options)
    table = Table("dataset", "n", "n_prompts", "ratio", "median_tokens", "artifact")
    for column in (table.columns[0], table.columns[-1]):
        column.overflow = "fold"  # names are there to be copied, so none is cut
    versions = {f"{name}@{ref}": a for name in store.ref_names(DATASET) for ref, a in store.refs(DATASET, name).items()}
    stored = store.find_many(versions.values(), listing=True)
    for version, artifact in sorted(versions.items()):
        metrics = stored[artifact].metrics if artifact in stored else {}
        cells = [str(metrics.get(column, "")) for column in ("n", "n_prompts", "ratio", "median_tokens")]
        place = str(artifact) if artifact in stored else f"{artifact}: not in the store"
        table.add_row(*(Text(visible(cell)) for cell in (version, *cells, place)))
    open_console().print(table)
    return 0
