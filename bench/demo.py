"""`make demo` from a fresh clone, as a newcomer would: seconds, and the peak memory of everything together.

    python3 bench/demo.py [--out FILE]         on an otherwise idle machine; needs nothing but Python and git

Memory is how far the machine's available memory falls, so it counts every process, the Prefect server's and Ray's too.
The model cache is a new folder, so the models are fetched and converted within the time.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def available() -> int:
    """MemAvailable in KiB."""
    found = re.search(r"MemAvailable:\s+(\d+)", Path("/proc/meminfo").read_text())
    assert found is not None
    return int(found.group(1))


@contextmanager
def lowest_available() -> Iterator[list[int]]:
    """A list with the lowest available memory during the block so far."""
    lowest, done = [available()], threading.Event()

    def watch() -> None:
        while not done.wait(0.5):
            lowest[0] = min(lowest[0], available())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield lowest
    finally:
        done.set()
        watcher.join()


def run_demo(clone: Path, environment: dict[str, str]) -> dict[str, float | None]:
    """Run `make demo` and echo its lines; return what was measured."""
    before, started, lines, installed = available(), time.monotonic(), [], 0.0
    with (
        lowest_available() as lowest,
        subprocess.Popen(["make", "demo"], cwd=clone, env=environment, stdout=subprocess.PIPE, text=True) as make,
    ):
        assert make.stdout is not None
        for line in make.stdout:
            if line.startswith("models:"):
                installed = time.monotonic() - started
            lines.append(line)
            print(line, end="", flush=True)
    total = time.monotonic() - started
    if make.returncode != 0:
        sys.exit(f"make demo ended with {make.returncode}")
    flow = re.search(r"quickstart flow (\d+) s", "".join(lines))
    return {
        "total_s": round(total),
        "installation_s": round(installed),
        "flow_s": int(flow.group(1)) if flow else None,
        "peak_gib": round((before - lowest[0]) / 2**20, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--keep", type=Path, help="clone into this folder and leave it and its server there")
    options = parser.parse_args()
    here = Path(__file__).resolve().parent.parent
    with tempfile.TemporaryDirectory() as scratch:
        clone = options.keep or Path(scratch) / "reseed"
        subprocess.run(["git", "clone", "--quiet", str(here), str(clone)], check=True)
        environment = {**os.environ, "RESEED_CACHE": str(Path(scratch) / "cache")}
        try:
            measured = run_demo(clone, environment)
        finally:
            if options.keep is None:
                subprocess.run([".venv/bin/reseed", "down"], cwd=clone, env=environment, check=True)
    print(json.dumps(measured))
    if options.out:
        options.out.write_text(json.dumps(measured) + "\n")


if __name__ == "__main__":
    main()
