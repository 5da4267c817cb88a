"""What a flow started ends with it: real processes, killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[2]
FLOW = """
import os, subprocess, sys, time
from tasks.leftovers import end_together
end_together()
end_together()
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
print(child.pid, flush=True)
time.sleep(float(sys.argv[1]))
"""


def alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def watchers() -> set[int]:
    found = psutil.process_iter(["cmdline"])
    return {process.pid for process in found if "leftovers.py" in " ".join(process.info["cmdline"] or [])}


@pytest.mark.parametrize(("seconds", "signals"), [("0", []), ("600", [signal.SIGKILL]), ("600", [signal.SIGTERM])])
def test_a_flow_takes_its_processes_along(seconds: str, signals: list[int]) -> None:
    before = watchers()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "RESEED_FLOW": "of-another-flow"}
    bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], env=environment)
    flow = subprocess.Popen([sys.executable, "-c", FLOW, seconds], env=environment, stdout=subprocess.PIPE, text=True)
    try:
        assert flow.stdout is not None
        child = int(flow.stdout.readline())
        assert alive(child)
        for number in signals:
            flow.send_signal(number)
        flow.wait(timeout=30)
        end = time.monotonic() + 10
        while (alive(child) or watchers() - before) and time.monotonic() < end:
            time.sleep(0.05)
        assert not alive(child)
        assert watchers() - before == set(), "the watcher ends too"
        assert bystander.poll() is None, "the flow's own processes only"
    finally:
        for process in (flow, bystander):
            process.kill()
            process.wait()
