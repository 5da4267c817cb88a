"""One of two ranks that looks at what DeepSpeed makes of numbers: started by torchrun, each rank writes a file.

numbers_worker.py SPEC.json     OUT/rank-N.json has the buffers' differences, the error of summed gradients, the masks
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from tiny_rows import PROBLEM, SHORT, PowerError, Recorder, job, rows

from reseed.models.loading import load_model
from reseed.models.names import ModelSpec
from reseed.settings import TrainingSettings
from reseed.training.arguments import training_arguments
from reseed.training.loop import train
from reseed.training.zero.settings import deepspeed_settings, join_ranks
from tasks.training_worker import build_no_helpers

RANK, WORLD = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
MICRO = 32
DROPPING = SHORT.model_copy(update={"dropout": 0.5, "zero_stage": 2, "evaluate_every": 1})


def buffers(folder: Path, out: Path) -> dict[str, list[Any]]:
    """Every buffer of a model in bfloat16 that ZeRO-3 shards while it is loaded: its dtype in a plain model, its dtype
    here, and how far it is off."""
    spec = ModelSpec(name=str(folder))
    plain = dict(load_model(folder, spec).named_buffers())
    what = replace(job(folder, settings=SHORT.model_copy(update={"zero_stage": 3})), world=WORLD, deepspeed=True)
    arguments = training_arguments(replace(what, model=spec), 4, out / "work")
    join_ranks()
    sharded = dict(load_model(folder, spec).named_buffers())
    del arguments  # transformers shards models for as long as they live
    gc.collect()
    assert sharded.keys() == plain.keys()
    return {
        name: [str(own.dtype), str(sharded[name].dtype), float((sharded[name].double() - own.double()).abs().max())]
        for name, own in plain.items()
    }


def summed(stage: int, offload: str) -> float:
    """The relative error of a gradient summed over `MICRO` micro-steps: what a step of length 1 moved the weights by."""
    import deepspeed
    from deepspeed.utils import safe_get_full_fp32_param

    settings = deepspeed_settings(TrainingSettings(zero_stage=stage, offload=offload), "bfloat16")  # type: ignore[arg-type]
    sizes = {"train_micro_batch_size_per_gpu": 1, "gradient_accumulation_steps": MICRO}
    settings |= {"train_batch_size": MICRO * WORLD, "gradient_clipping": 1e9, **sizes}
    zero = settings["zero_optimization"]
    settings["zero_optimization"] = {name: 10 if value == "auto" else value for name, value in zero.items()}
    torch.manual_seed(0)
    net, same = (torch.nn.Linear(64, 64, bias=False).bfloat16() for _ in range(2))
    same.load_state_dict(net.state_dict())
    begun, wanted = net.weight.detach().double().clone(), torch.zeros(64, 64, dtype=torch.float64)
    data = torch.randn(MICRO, WORLD, 1, 64).add(1).bfloat16()
    for own in data.flatten(0, 1):
        (part,) = torch.autograd.grad(same(own).float().square().sum() / (MICRO * WORLD), same.weight)
        wanted += part.double()
    engine, *_ = deepspeed.initialize(model=net, optimizer=torch.optim.SGD(net.parameters(), lr=1.0), config=settings)
    for own in data[:, RANK]:
        engine.backward(engine(own).float().square().sum())
        engine.step()
    moved = begun - safe_get_full_fp32_param(net.weight).double()
    return float((moved - wanted).norm() / wanted.norm())


def masks(model: Path, out: Path, resume: Path | None = None, stop_after: int | None = None) -> list[str]:
    """The first places of every dropout mask of a run."""
    seen: list[str] = []

    def watched(module: Any, _: Any, result: torch.Tensor) -> None:
        if isinstance(module, torch.nn.Dropout) and module.training:
            seen.append("".join(str(int(value != 0)) for value in result.flatten()[:64]))

    what = replace(job(model, settings=DROPPING, micro=2, sparse=False), world=WORLD, deepspeed=True)
    watcher = Recorder(out / f"seen-{RANK}", stop_after)
    hook = torch.nn.modules.module.register_module_forward_hook(watched)
    with contextlib.suppress(PowerError):
        train(what, PROBLEM, rows(16), rows(20)[16:], out / "work", watcher, resume)
    hook.remove()
    return seen


if __name__ == "__main__":
    torch.set_num_threads(1)
    build_no_helpers()
    spec = json.loads(Path(sys.argv[1]).read_text())
    out, linear = Path(spec["out"]), torch.nn.functional.linear
    found: dict[str, Any] = {"buffers": {name: buffers(Path(folder), out) for name, folder in spec["families"].items()}}
    torch.nn.functional.linear = linear  # ZeRO-3 leaves its own behind
    found["summed"] = {f"{stage} {offload}": summed(stage, offload) for stage, offload in spec["stages"]}
    torch.nn.functional.linear = linear
    found["masks"] = masks(Path(spec["model"]), out / "whole")
    masks(Path(spec["model"]), out / "stopped", stop_after=2)
    found["resumed"] = masks(Path(spec["model"]), out / "resumed", out / "stopped" / f"seen-{RANK}" / "step-2")
    (out / f"rank-{RANK}.json").write_text(json.dumps(found))
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
