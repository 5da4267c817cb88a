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

from reseed.records import ReseedError
from tasks.time_limit import time_limit

ROOT = Path(__file__).parents[2]
FLOW = """
import os, signal, subprocess, sys, time
from tasks.leftovers import end_together
from tasks.time_limit import time_limit
end_together()
end_together()
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
print(child.pid, flush=True)
if sys.argv[1] == "over in time":
    with time_limit(0.5 / 3600, "work"):
        pass
    time.sleep(1.5)
    sys.exit("lives")
with time_limit(float(sys.argv[2]) / 3600, "work"):
    if sys.argv[1] == "hang":  # no Python code runs while a C function waits
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
    if sys.argv[1] == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    time.sleep(float(sys.argv[1] != "end") * 600)
"""
SAID = {
    ("wait", 1): "work is not done after 8.33333e-05 hours and was stopped",
    ("hang", -signal.SIGKILL): "exceeded its time limit and did not end: killed",
    ("over in time", 1): "lives",
}


def alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def watchers() -> set[int]:
    found = psutil.process_iter(["cmdline"])
    return {process.pid for process in found if "leftovers.py" in " ".join(process.info["cmdline"] or [])}


@pytest.mark.parametrize(
    ("doing", "seconds", "signals", "code"),
    [
        ("end", "600", [], 0),
        ("wait", "600", [signal.SIGKILL], -signal.SIGKILL),
        ("wait", "600", [signal.SIGTERM], -signal.SIGTERM),
        ("wait", "0.3", [], 1),  # its time is over: it ends by itself
        ("hang", "0.3", [], -signal.SIGKILL),
        ("stop", "0.3", [], -signal.SIGKILL),
        ("over in time", "", [], 1),
    ],
)
def test_a_flow_takes_its_processes_along(doing: str, seconds: str, signals: list[int], code: int) -> None:
    before = watchers()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "RESEED_FLOW": "of-another-flow"}
    bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], env=environment)
    flow = subprocess.Popen(
        [sys.executable, "-c", FLOW, doing, seconds], env=environment, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert flow.stdout is not None
        child = int(flow.stdout.readline())
        assert alive(child)
        for number in signals:
            flow.send_signal(number)
        assert flow.wait(timeout=60) == code
        end = time.monotonic() + 10
        while (alive(child) or watchers() - before) and time.monotonic() < end:
            time.sleep(0.05)
        assert not alive(child)
        assert watchers() - before == set(), "the watcher ends too"
        assert bystander.poll() is None, "the flow's own processes only"
        assert flow.stderr is not None
        assert SAID.get((doing, code), "") in flow.stderr.read()
    finally:
        for process in (flow, bystander):
            process.kill()
            process.wait()


@pytest.mark.parametrize("hours", [0.0, -1.0, float("nan"), float("inf"), 5e6])
def test_a_limit_that_is_none_is_refused(hours: float) -> None:
    with pytest.raises(ReseedError, match="wanted more than 0 and at most 8760"), time_limit(hours, "work"):
        raise AssertionError("it started")
