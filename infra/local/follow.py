"""Follow a flow run from outside: print its log as it reaches the server, until it ends."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING
from uuid import UUID

from reseed.records import ReseedError
from reseed.text import visible

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import Log

    from infra.local.settings import LocalServer

EVERY = 2.0  # seconds between two looks
PAGE, LATE = 200, 100  # lines
DEPLOYMENT_STEPS = re.compile(r"deployment (pull )?step", re.IGNORECASE)  # Prefect's own, the same in every run


def start_deployment(name: str, environment: Mapping[str, str]) -> UUID:
    """Call `prefect deployment run NAME`; return the id of the flow run that it scheduled."""
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deployment", "run", name]
    done = subprocess.run(command, env=dict(environment), capture_output=True, text=True)
    found = re.search(r"UUID:\s*([0-9a-f-]{36})", done.stdout)
    if done.returncode != 0 or found is None:
        raise ReseedError(f"prefect deployment run {name} failed: {(done.stderr or done.stdout).strip()[-500:]}")
    return UUID(found.group(1))


def follow(run: UUID, server: LocalServer, say: Callable[[str], None] = print) -> str:
    """Print the run's log until it ends; return the name of its last state, `Completed` if all went well."""
    from prefect.client.orchestration import SyncPrefectClient

    seen: set[UUID] = set()
    with SyncPrefectClient(server.api_url, auth_string=server.secret) as client:
        while True:
            state = client.read_flow_run(run).state
            ended = state is not None and state.is_final()
            if ended:
                time.sleep(EVERY)  # the last lines reach the server after the final state
            lines = read_log(client, run, max(0, len(seen) - LATE))
            for line in lines:
                if line.id not in seen and not DEPLOYMENT_STEPS.search(line.message):
                    say(f"{line.timestamp:%H:%M:%S} {visible(line.message)}")
            seen |= {line.id for line in lines}
            if ended and state is not None:
                return state.name or state.type.value
            time.sleep(EVERY)


def read_log(client: SyncPrefectClient, run: UUID, offset: int) -> list[Log]:
    """All lines from `offset` on. A late line may be inserted before lines that were already read."""
    from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId
    from prefect.client.schemas.sorting import LogSort

    wanted = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run]))
    lines: list[Log] = []
    while True:
        page = client.read_logs(wanted, limit=PAGE, offset=offset + len(lines), sort=LogSort.TIMESTAMP_ASC)
        lines += page
        if len(page) < PAGE:
            return lines
