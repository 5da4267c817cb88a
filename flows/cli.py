"""The `reseed` command. Heavy packages are imported by the commands that need them, so that `plan` answers at once."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from reseed.records import ReseedError
from reseed.reporting.text import visible

if TYPE_CHECKING:
    from rich.console import Console

    from reseed.profile import Profile
    from reseed.recipe import Recipe
    from reseed.store import ArtifactStore


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command; a user's mistake is one message and exit code 2, Ctrl-C is 130."""
    options = parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], int] = options.command
    try:
        code = command(options)
        sys.stdout.flush()  # here, where a reader that is gone (`| head`) is no traceback
    except ReseedError as error:
        print(f"reseed: {visible(str(error))}", file=sys.stderr)
        code = 2
    except KeyboardInterrupt:
        print("reseed: stopped; what was finished is kept, the same command goes on from there", file=sys.stderr)
        code = 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 141
    sys.exit(code)


def parser() -> argparse.ArgumentParser:
    """The commands and their options."""
    top = argparse.ArgumentParser(
        prog="reseed", description="Did this change make the model better, or was it the seed?"
    )
    commands = top.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def add(name: str, command: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=text, description=text)
        made.set_defaults(command=command)
        return made

    add("up", up, "start the local Prefect server, work pool and worker").add_argument("--port", type=int, default=4200)
    add("down", down, "stop what `up` started")
    for name, command, text in (
        ("plan", plan, "what would run, and what the store already has; starts nothing"),
        ("run", run, "run a recipe in this process, with progress"),
    ):
        made = add(name, command, text)
        made.add_argument("recipe", help="a recipe's name or its YAML file")
        made.add_argument("--profile", default="laptop", help="a profile's name or its YAML file (default: laptop)")
        made.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides",
                          help="as in training.epochs=2, or profile.store=s3://bucket for the profile's keys")  # fmt: skip
        if name == "plan":
            made.add_argument("--memory", action="store_true", help="bytes a rank of training, for each ZeRO stage")
    made = add("fetch", fetch, "fetch and convert the models of a profile, and of a recipe, before they are needed")
    made.add_argument("recipe", nargs="?", help="a recipe's name or its YAML file; its models are fetched too")
    made.add_argument("--profile", default="laptop")
    made.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides")
    made = add("results", results, "variants × seeds: mean ± std, ensemble, the untrained model")
    made.add_argument("name", help="an experiment's name, as its recipe says")
    made.add_argument("--json", action="store_true", help="one JSON object")
    made.add_argument("--profile", default="laptop")
    made.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides")
    made = add("export", export, "a member's adapter as two files that stock PEFT loads, or merged into its base")
    made.add_argument("artifact", help="adapter/NAME/KEY, as `reseed results NAME --json` shows it")
    made.add_argument("folder", type=Path, help="a new folder")
    made.add_argument("--merge", action="store_true", help="the whole 16-bit model, with the adapter merged in")
    made.add_argument("--base", metavar="FOLDER", help="the base, where it was a local folder (with --merge)")
    made.add_argument("--profile", default="laptop")
    made.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides")
    made = add("data", data_list, "dataset versions in the store")
    made.add_argument("what", choices=["list"])
    made.add_argument("--profile", default="laptop")
    made.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides")
    return top


def up(options: argparse.Namespace) -> int:
    """Start the local server, pool and worker."""
    from flows.local_server import up as start

    server = start(Path.cwd(), options.port)
    print(f"dashboard: {server.ui_url}")
    return 0


def down(options: argparse.Namespace) -> int:
    """Stop them."""
    from flows.local_server import down as stop

    stop(Path.cwd())
    return 0


def plan(options: argparse.Namespace) -> int:
    """Print every step and whether the store has it."""
    from reseed.line import plan_line
    from reseed.profile import load_profile
    from reseed.recipe import load_recipe, split_overrides
    from reseed.store import ArtifactStore

    own, place = split_overrides(options.overrides)
    recipe, profile = load_recipe(options.recipe, own), load_profile(options.profile, place)
    if options.memory:
        return plan_memory(recipe, profile)
    store = ArtifactStore(profile.store)
    steps = plan_line(recipe, profile, store).steps()
    for step in steps:
        state = "in the store" if store.find(step.artifact) else "would run"
        seed = f" seed {step.seed}" if step.seed is not None else ""
        print(f"{state:13} {step.verb:10} {visible(str(step.artifact))}{seed}")
    return 0


def plan_memory(recipe: Recipe, profile: Profile) -> int:
    """Print what training will take, once for each variant whose model or training differs."""
    from reseed.line import student
    from reseed.reporting.memory import memory_table
    from reseed.training.arguments import micro_batch
    from reseed.training.memory_plan import plan_memory as planned

    workers = profile.training.workers
    seen: dict[tuple[object, object], str] = {}
    for name in recipe.variants:
        variant = recipe.variant(name)
        spec, settings = student(variant, profile), variant.training
        if (spec, settings) in seen:
            print(visible(f"{name}: as {seen[spec, settings]}"))
            continue
        seen[spec, settings] = name
        labels = variant.prediction.max_new_tokens if settings.loss_on == "completion" else settings.max_tokens
        rows = micro_batch(settings.batch_size, workers, profile.training.micro_batch_size)
        plans = planned(spec, settings, rows, labels, dict.fromkeys((0, 1, 2, 3), workers))
        title = f"{name}: {spec.name}, {workers} ranks, {rows} rows × {settings.max_tokens} tokens a rank"
        open_console().print(memory_table(title, plans))
    return 0


def run(options: argparse.Namespace) -> int:
    """Run the experiment here, on the project's own Prefect server if it is up, else on a temporary one."""
    from flows.local_server import environment, running

    whole = environment(Path.cwd(), running(Path.cwd()))
    os.environ.clear()  # a user's own PREFECT_* must not lead this run to another server
    os.environ.update(whole)
    from flows.experiment import run_experiment
    from flows.planning import load_plan
    from reseed.reporting.tables import results_table, verdict
    from tasks.leftovers import start_server

    load_plan(options.recipe, options.profile, options.overrides)  # a user's mistake shows before anything starts
    start_server()
    found = run_experiment(options.recipe, options.profile, options.overrides)
    console = open_console()
    console.print(results_table(found))
    console.print(verdict(found), markup=False)
    return 0


def fetch(options: argparse.Namespace) -> int:
    """Fetch and convert the profile's models, and the students of a recipe: the profile's, or its variants' own."""
    from reseed.models.cache import materialise
    from reseed.profile import load_profile
    from reseed.recipe import load_recipe, split_overrides

    own, place = split_overrides(options.overrides)
    if own and options.recipe is None:
        raise ReseedError(f"--set {own[0]}: no recipe is named; name it, or wanted profile.KEY=VALUE")
    profile = load_profile(options.profile, place)
    wanted = [("generator", profile.roles.generator), ("embedder", profile.roles.embedder)]
    if options.recipe is not None:
        recipe = load_recipe(options.recipe, own)
        students = [profile.student(recipe.variant(name).model) for name in recipe.variants]
        wanted += [("student", spec) for spec in dict.fromkeys(students)]
    elif profile.roles.student is not None:
        wanted.append(("student", profile.roles.student))
    for name, spec in wanted:
        print(visible(f"{name}: {materialise(spec).name}"), flush=True)
    return 0


def open_store(options: argparse.Namespace) -> ArtifactStore:
    """The profile's store, for a command that reads no recipe."""
    from reseed.profile import load_profile
    from reseed.recipe import split_overrides
    from reseed.store import ArtifactStore

    own, place = split_overrides(options.overrides)
    if own:
        raise ReseedError(
            f"--set {own[0]}: no recipe is read here; wanted profile.KEY=VALUE, as in profile.store=FOLDER"
        )
    return ArtifactStore(load_profile(options.profile, place).store)


def open_console() -> Console:
    """The terminal; into a pipe or a file lines are not cut at the 80 columns of a terminal that is not there."""
    from rich.console import Console

    return Console() if sys.stdout.isatty() or "COLUMNS" in os.environ else Console(width=200)


def results(options: argparse.Namespace) -> int:
    """Print the newest result of an experiment."""
    from reseed.evaluation.experiment import latest_results

    found = latest_results(open_store(options), options.name)
    if options.json:
        print(json.dumps(found.to_json(), indent=2, ensure_ascii=False))
        return 0
    from reseed.reporting.tables import results_table, verdict

    console = open_console()
    console.print(results_table(found))
    console.print(verdict(found), markup=False)
    return 0


def export(options: argparse.Namespace) -> int:
    """Copy an adapter out of the store, or merge it."""
    from reseed.export import export_adapter, merge_adapter
    from reseed.trained import find_adapter

    store = open_store(options)
    artifact = find_adapter(store, options.artifact)
    if not options.merge:
        print("\n".join(f"{options.folder}/{name}" for name in export_adapter(store, artifact, options.folder)))
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
    for name in sorted({manifest.name for manifest in store.list(DATASET)}):
        for ref, artifact in sorted(store.refs(DATASET, name).items()):
            metrics = store.manifest(artifact).metrics
            cells = [str(metrics.get(column, "")) for column in ("n", "n_prompts", "ratio", "median_tokens")]
            table.add_row(*(Text(visible(cell)) for cell in (f"{name}@{ref}", *cells, str(artifact))))
    open_console().print(table)
    return 0
