"""Everything that only a GPU can show, in one command and under 20 minutes on one card.

    .venv/bin/python bench/gpu_day.py --out gpu_day.json --write docs/benchmarks.md
    .venv/bin/python bench/gpu_day.py --only trainer,nf4 --out gpu_day.json    a part; the file keeps the other sections
    .venv/bin/python bench/gpu_day.py --tiny --out tiny.json                    on a CPU: the script itself

Nothing is fetched: all models have random weights. Each section runs in a process of its own, which is ended at its time
limit; what fails is a row of its table, and the day goes on. The file is written after every section.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any

from gpu.report import tables
from pages import write

ROOT = Path(__file__).resolve().parent.parent
SECTIONS = {  # name → module and function, seconds that it may take
    "trainer": ("placed.trainer", 150),
    "nf4": ("experts.nf4", 70),
    "precision": ("fits.precision", 100),
    "optimisers": ("fits.optimisers", 100),
    "offload": ("fits.offload", 150),
    "resume": ("fits.resume", 150),
    "engine": ("writing.engine", 80),
    "mixtral": ("rates.shape", 390),
}
TINY_LIMIT = 240  # seconds; a CPU that others use is slow


def run_section(name: str, place: Path, rows: Path, tiny: bool) -> None:
    """In the section's own process: its rows, one a line, as they come."""
    from gpu.setup import Setup

    module, _, function = SECTIONS[name][0].partition(".")
    with rows.open("a", encoding="utf-8") as file:

        def tell(row: dict[str, Any]) -> None:
            print(json.dumps(row), flush=True)
            file.write(json.dumps(row) + "\n")
            file.flush()

        try:
            for row in getattr(importlib.import_module(f"gpu.{module}"), function)(Setup(place, tiny)):
                tell(row)
        except Exception as error:
            tell({"what": name, "failed": f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:300]}"})


def section(name: str, place: Path, tiny: bool, factor: float) -> dict[str, Any]:
    """A section's rows and time. Whatever ends its process, the rows so far are kept."""
    limit = TINY_LIMIT if tiny else SECTIONS[name][1] * factor
    rows, started = place / f"{name}.jsonl", time.monotonic()
    rows.touch()
    command = [sys.executable, __file__, "--section", name, "--place", str(place), *(["--tiny"] if tiny else [])]
    child = subprocess.Popen(command, env=environment(place), cwd=ROOT, start_new_session=True)
    ended: str | None = None
    try:
        code = child.wait(limit)
        ended = None if code == 0 else f"its process ended with {code}"
    except subprocess.TimeoutExpired:
        ended = f"not done within {limit:.0f} s"
    finally:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)  # with the workers that it started
            child.wait()
    found = [json.loads(line) for line in rows.read_text(encoding="utf-8").splitlines()]
    found += [{"what": "the rest", "failed": ended}] if ended else []
    return {"seconds": time.monotonic() - started, "about": about(name), "rows": found}


def environment(place: Path) -> dict[str, str]:
    """Where a section writes; without a card, DeepSpeed must be told."""
    own = {"PYTHONPATH": str(ROOT), "RESEED_CACHE": str(place / "cache"), "TOKENIZERS_PARALLELISM": "false"}
    own |= {"WANDB_MODE": "disabled", "HF_HUB_OFFLINE": "1"}
    return os.environ | own | ({} if card() else {"DS_ACCELERATOR": "cpu", "CUDA_VISIBLE_DEVICES": ""})


def card() -> str | None:
    """The name of the GPU, if there is one that torch can use."""
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else None


def about(name: str) -> str:
    """The first line of the section's own words."""
    module, _, function = SECTIONS[name][0].partition(".")
    found = getattr(importlib.import_module(f"gpu.{module}"), function).__doc__ or ""
    return str(found.splitlines()[0])


def commit() -> str:
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    return done.stdout.strip() or "unknown"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(SECTIONS), help="names with commas between them")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--limit", type=float, default=1.0, help="times every section's time limit")
    parser.add_argument("--out", type=Path, default=Path("gpu_day.json"))
    parser.add_argument("--write", type=Path, help="a Markdown file with the marks of the tables")
    parser.add_argument("--section", choices=SECTIONS, help=argparse.SUPPRESS)
    parser.add_argument("--place", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.section:
        run_section(options.section, options.place, options.place / f"{options.section}.jsonl", options.tiny)
        return
    wanted = options.only.split(",")
    if unknown := set(wanted) - set(SECTIONS):
        parser.error(f"--only: no section is called {', '.join(sorted(unknown))}; there are {', '.join(SECTIONS)}")
    name = card()
    if name is None and not options.tiny:
        parser.error("there is no GPU that torch can use; --tiny tries the script on a CPU")
    day: dict[str, Any] = json.loads(options.out.read_text()) if options.out.is_file() else {"sections": {}}
    shown = "python bench/gpu_day.py" + (" --tiny" if options.tiny else "")
    day |= {"device": name or "CPU", "commit": commit(), "date": str(date.today()), "command": shown}
    with tempfile.TemporaryDirectory() as place:
        for one in [name for name in SECTIONS if name in wanted]:
            print(f"--- {one}", flush=True)
            day["sections"][one] = section(one, Path(place), options.tiny, options.limit)
            options.out.write_text(json.dumps(day, indent=1) + "\n")
    print(tables(day))
    if options.write:
        write(options.write, tables(day), "gpu-day")


if __name__ == "__main__":
    main()
