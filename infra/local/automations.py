"""What keeps a slot from being held by a run that is dead: the server's settings and automations."""

from __future__ import annotations

import urllib.error
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import yaml

from reseed.records import ReseedError

SETTINGS = {
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",  # the least; Prefect's own is three minutes
    # In memory, leases end with the server: a run that goes on is ended, and a slot whose run died is held for ever.
    "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
    "PREFECT_SERVER_DEPLOYMENTS_CONCURRENCY_SLOT_WAIT_SECONDS": "10",  # how long a queued run waits to ask again
}
OURS = "reseed: "  # how our automations' names begin
Call = Callable[[str, Any, str], Any]
"""One request to the API: path, body (or None), method."""


def switch_on(project: Path, server_pid: int, call: Call, say: Callable[[str], None]) -> None:
    """The automations of `infra/prefect/automations.yaml`, unless this server has been told this very file."""
    wanted, done = project / "infra/prefect/automations.yaml", project / ".reseed/automated"
    text = wanted.read_bytes() if wanted.exists() else b""
    told = f"{server_pid} {sha256(text).hexdigest()}"
    if not text or (done.exists() and done.read_text() == told):
        return
    known = {found["name"]: found["id"] for found in call("/automations/filter", {}, "POST")}
    entries = {entry["name"]: entry for entry in yaml.safe_load(text)}
    for name, entry in entries.items():
        path, method = (f"/automations/{known[name]}", "PUT") if name in known else ("/automations/", "POST")
        try:
            call(path, entry, method)
        except urllib.error.HTTPError as error:
            why = error.read().decode(errors="replace")
            raise ReseedError(f"{wanted}: Prefect refuses the automation '{name}': {why}; mend it there") from error
    for name in known.keys() - entries.keys():
        if name.startswith(OURS):
            call(f"/automations/{known[name]}", None, "DELETE")
    done.write_text(told)
    say(f"switched on {len(entries)} automations")
