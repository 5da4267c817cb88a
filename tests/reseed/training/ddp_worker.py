"""One rank that trains tiny models as a spec says: started by torchrun, or alone with torchrun's variables set.

ddp_worker.py SPEC.json     a list of runs; each one's rank 0 writes OUT/result.json
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from tiny_rows import PROBLEM, SHORT, PowerError, Recorder, job, rows

from reseed.models.names import ModelSpec
from reseed.records import ReseedError
from reseed.training.job import Judge
from reseed.training.loop import train
from tasks.training_worker import build_no_helpers

RANK = int(os.environ["RANK"])
LOCAL_RANK = int(os.environ["LOCAL_RANK"])
WORLD = int(os.environ["WORLD_SIZE"])


class Bystander(Recorder):
    """A rank whose node has another one that keeps the checkpoints."""

    def checkpoint(self, folder: Path, step: int) -> None:
        assert (folder / "state").is_dir()
        if step == self.stop_after:
            raise PowerError


def run(model: Path, out: Path, spec: dict[str, Any]) -> None:
    settings = SHORT.model_copy(update=spec.get("settings", {}))
    what = replace(job(model, settings=settings, micro=4 // WORLD), world=spec.get("world", WORLD), deepspeed=True)
    what = replace(what, model=what.model.model_copy(update=spec.get("model", {})))
    node = out / f"node-{RANK}" if LOCAL_RANK == 0 and RANK > 0 else out
    watcher = (Recorder if LOCAL_RANK == 0 else Bystander)(node / "seen", spec.get("stop_after"))
    resume, start = (Path(spec[name]) if name in spec else None for name in ("resume", "start"))
    if resume is not None and not (resume / "origin.json").is_file():
        resume = max(resume.iterdir(), key=lambda path: int(path.name.removeprefix("step-")))
    if "embedder" in spec:
        what = replace(what, judge=Judge(ModelSpec(name=spec["embedder"], dtype="float32"), 12, True))
    result: dict[str, Any] = {}
    before = dict(os.environ)
    os.environ.update(spec.get("environment", {}))
    with contextlib.suppress(PowerError):
        try:
            count = spec.get("rows", 80)
            summary = train(what, PROBLEM, rows(count), rows(count + 7)[count:], node / "work", watcher, resume, start)
            result = asdict(summary) if summary is not None else {}
        except ReseedError as error:
            result = {"error": str(error)}
    os.environ.clear()
    os.environ.update(before)
    if RANK == 0:
        out.mkdir(parents=True, exist_ok=True)
        (out / "result.json").write_text(json.dumps({**result, "points": len(watcher.points)}))
    if torch.distributed.is_initialized():
        torch.distributed.barrier()  # the other rank may still be writing its part
    if RANK == 0 and "merge_step" in spec:  # as Ray Train does with what the nodes hand over
        for part in (out, *sorted(out.glob("node-*"))):
            shutil.copytree(part / "seen" / f"step-{spec['merge_step']}", out / "merged", dirs_exist_ok=True)
    if torch.distributed.is_initialized():
        torch.distributed.barrier()


if __name__ == "__main__":
    torch.set_num_threads(1)
    build_no_helpers()
    spec = json.loads(Path(sys.argv[1]).read_text())
    for one in spec["runs"]:
        run(Path(spec["model"]), Path(one["out"]), one)
    if torch.distributed.is_initialized():  # or a rank that ends first may take its connections from the other
        torch.distributed.destroy_process_group()
