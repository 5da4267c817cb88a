"""Follow a flow run from outside: its log lines as they reach the server, until it ends."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from uuid import UUID

from reseed.records import ReseedError

EVERY = 2.0  # seconds between two looks


def start_deployment(name: str, environment: Mapping[str, str]) -> UUID:
    """`prefect deployment run NAME`; the id of the flow run that it scheduled."""
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deployment", "run", name]
    done = subprocess.run(command, env=dict(environment), capture_output=True, text=True)
    found = re.search(r"UUID:\s*([0-9a-f-]{36})", done.stdout)
    if done.returncode != 0 or found is None:
        raise ReseedError(f"prefect deployment run {name} failed: {(done.stderr or done.stdout).strip()[-500:]}")
    return UUID(found.group(1))


def follow(run: UUID, api_url: str, say: Callable[[str], None] = print) -> str:
    """Print the run's log until it is over; the name of its last state, `Completed` when all went well."""
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId
    from prefect.client.schemas.sorting import LogSort

    said = 0
    with SyncPrefectClient(api_url) as client:
        while True:
            state = client.read_flow_run(run).state
            ended = state is not None and state.is_final()
            if ended:
                time.sleep(EVERY)  # the last lines reach the server after the state
            while True:
                lines = client.read_logs(
                    LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run])),
                    limit=200,
                    offset=said,
                    sort=LogSort.TIMESTAMP_ASC,
                )
                for line in lines:
                    say(f"{line.timestamp:%H:%M:%S} {line.message}")
                said += len(lines)
                if len(lines) < 200:
                    break
            if ended and state is not None:
                return state.name or state.type.value
            time.sleep(EVERY)
