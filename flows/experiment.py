"""An experiment: every variant is trained with every seed, blended, scored and reported."""

from __future__ import annotations

from prefect import flow

from flows.planning import check_rows, in_turn, read_line
from reseed.evaluation.looks import is_settled
from reseed.line import Line, different
from reseed.results import Results
from tasks.ask import ask
from tasks.make import make
from tasks.report import report
from tasks.session import session
from tasks.train import train_all


@flow(name="experiment", flow_run_name="{recipe}")
def run_experiment(
    recipe: str = "quickstart", profile: str = "laptop", overrides: list[str] | None = None, until_decided: bool = False
) -> Results:
    """Run the recipe of that name; what the store already has is not run again."""
    with session():
        line = read_line(recipe, profile, overrides or [])  # every step and key; nothing has run
        lines = in_turn(line, until_decided)  # one, unless seeds are added, or the rows are split several times
        prepare(lines)
        for one in lines:
            results = answer(one)
            if is_settled(results):
                break
        return results


def prepare(lines: list[Line]) -> None:
    """Import or generate the rows, curate and partition them. Leaks are refused before training."""
    first = lines[0]
    if shards := first.needed_shards():
        ask(first.place, shards)
    for step in different(step for line in lines for step in line.preparing()):
        make(first.place, step)
    for line in lines:
        check_rows(line)


def answer(line: Line) -> Results:
    """Train, ask, blend, score and report."""
    train_all(line.place, line.adapters())  # one task a member, after the one that it continues
    ask(line.place, line.all_answers())  # the untrained student and all members, one pool a model
    for ensemble in line.ensembles():
        make(line.place, ensemble)
    make(line.place, line.results())
    return report(line.place, line.results(), line.report())
