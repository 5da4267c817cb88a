"""The `reseed` command: its options, and what its errors print. The commands are in `flows/commands.py`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from flows import commands
from reseed.records import ReseedError
from reseed.text import visible

Command = Callable[[argparse.Namespace], int]
AddCommand = Callable[[str, Command, str], argparse.ArgumentParser]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command. A user's mistake prints one message and exits with 2, Ctrl-C with 130."""
    options = parser().parse_args(arguments)
    command: Command = options.command
    try:
        code = command(options)
        sys.stdout.flush()  # here, so that a reader that is gone (`| head`) causes no traceback
    except ReseedError as error:
        print(f"reseed: {visible(str(error))}", file=sys.stderr)
        code = 2
    except KeyboardInterrupt:
        print("reseed: stopped; what was finished is kept, run the same command again to continue", file=sys.stderr)
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
    subparsers = top.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def add(name: str, command: Command, text: str) -> argparse.ArgumentParser:
        added = subparsers.add_parser(name, help=text, description=text)
        added.set_defaults(command=command)
        return added

    add_server_commands(add)
    add_recipe_commands(add)
    add_store_commands(add)
    return top


def add_server_commands(add: AddCommand) -> None:
    """The commands for the project's own Prefect server."""
    up = add("up", commands.up, "start the local Prefect server, work pool and worker")
    up.add_argument("--port", type=int, default=4200)
    up.add_argument("--stay", action="store_true", help="keep them alive from here, for systemd; SIGTERM stops them")
    add("down", commands.down, "stop what `up` started")
    add("env", commands.env, 'for eval "$(reseed env)": `prefect` then talks to the local server; shows its key')


def add_recipe_commands(add: AddCommand) -> None:
    """The commands for a recipe or a profile."""
    plan = add("plan", commands.plan, "what would run, and what the store already has; starts nothing")
    run = add("run", commands.run, "run a recipe in this process, with progress")
    for command in (plan, run):
        command.add_argument("recipe", help="a recipe's name or its YAML file")
        add_profile_options(command)
    run.add_argument(
        "--until-decided",
        action="store_true",
        help="add seeds, as `seeds: {start: 3, most: 10}` in the recipe declares, until its question is decided",
    )
    plan.add_argument("--memory", action="store_true", help="bytes a rank of training, for each ZeRO stage")
    power = add(
        "power",
        commands.power,
        "before anything runs: what so many seeds and test rows can see, and what would be cheapest",
    )
    power.add_argument("recipe", help="a recipe's name or its YAML file")
    power.add_argument("--difference", type=float, help="a true difference to look for (default: the recipe's delta)")
    measured = power.add_mutually_exclusive_group()
    measured.add_argument(
        "--from",
        dest="earlier",
        metavar="EXPERIMENT",
        help="whose newest result says how scores vary (default: the recipe's)",
    )
    measured.add_argument(
        "--spread",
        metavar="SEED,GROUP",
        help="in place of a result: standard deviations from seed to seed, and of the difference from group to group",
    )
    power.add_argument("--groups", type=int, help="groups of test rows (default: the result's; --spread has none)")
    add_profile_options(power)
    fetch = add(
        "fetch", commands.fetch, "fetch and convert the models of a profile, and of a recipe, before they are needed"
    )
    fetch.add_argument("recipe", nargs="?", help="a recipe's name or its YAML file; its models are fetched too")
    add_profile_options(fetch)
    doctor = add("doctor", commands.doctor, "what this machine and profile can do, and what is missing")
    doctor.add_argument("--verify", action="store_true", help="hash every artifact in the store and model in the cache")
    add_profile_options(doctor)


def add_store_commands(add: AddCommand) -> None:
    """The commands for what is in the store."""
    results = add("results", commands.results, "variants × seeds: mean ± std, ensemble, the untrained model")
    results.add_argument("name", help="an experiment's name, as its recipe says")
    results.add_argument("--json", action="store_true", help="one JSON object")
    add_profile_options(results)
    compare = add(
        "compare", commands.compare, "is A better than B? from the store, also of different runs on the same test rows"
    )
    for name in ("a", "b"):
        compare.add_argument(name, help="EXPERIMENT, EXPERIMENT/VARIANT, EXPERIMENT/VARIANT/ensemble, EXPERIMENT/VARIANT/SEED "
                             "or EXPERIMENT/untrained; EXPERIMENT@KEY is an older result")  # fmt: skip
    compare.add_argument("--delta", type=float, help="the smallest difference that matters (default: the recipe's)")
    compare.add_argument("--json", action="store_true", help="one JSON object")
    add_profile_options(compare)
    report = add("report", commands.report, "the page of the newest result, made again without scoring again")
    report.add_argument("name", help="an experiment's name, as its recipe says")
    add_profile_options(report)
    export = add(
        "export",
        commands.export,
        "an adapter as two files that stock PEFT loads, or merged; answers as predictions.csv",
    )
    export.add_argument("artifact", help="adapter/NAME/KEY (as `reseed results NAME --json` shows it), ensemble/NAME/KEY or "
                        "predictions/NAME/KEY (`reseed plan RECIPE`); the beginning of the key is enough")  # fmt: skip
    export.add_argument("folder", type=Path, help="a new folder")
    export.add_argument("--merge", action="store_true", help="an adapter's whole 16-bit model, with it merged in")
    export.add_argument("--base", metavar="FOLDER", help="the base, where it was a local folder (with --merge)")
    add_profile_options(export)
    data = add("data", commands.data_list, "dataset versions in the store")
    data.add_argument("what", choices=["list"])
    add_profile_options(data)


def add_profile_options(command: argparse.ArgumentParser) -> None:
    """The options of a command that uses a profile."""
    command.add_argument("--profile", default="laptop", help="a profile's name or its YAML file (default: laptop)")
    command.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides",
                         help="as in training.epochs=2, or profile.store=s3://bucket for the profile's keys")  # fmt: skip
