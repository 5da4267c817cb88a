"""The server's settings and automations that keep a dead run from holding a slot."""

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
    # Leases in memory would end with the server: live runs would be ended, and a dead run's slot held forever.
    "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
    "PREFECT_SERVER_DEPLOYMENTS_CONCURRENCY_SLOT_WAIT_SECONDS": "10",  # until a queued run asks again
}
OURS = "reseed: "  # the prefix of our automations' names
Call = Callable[[str, Any, str], Any]
"""One request to the API: path, body (or None), method."""


def switch_on(project: Path, server_pid: int, call: Call, say: Callable[[str], None]) -> None:
    """Create the automations of `infra/prefect/automations.yaml`, unless this server already has that very file."""
    wanted, done = project / "infra/prefect/automations.yaml", project / ".reseed/automated"
    text = wanted.read_bytes() if wanted.exists() else b""
    version = f"{server_pid} {sha256(text).hexdigest()}"
    if not text or (done.exists() and done.read_text() == version):
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
    done.write_text(version)
    say(f"switched on {len(entries)} automations")
