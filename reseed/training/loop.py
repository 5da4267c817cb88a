"""One worker's loop: the same under Ray Train, under torchrun, or in a notebook."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from reseed.models.cache import materialise
from reseed.models.loading import hush, load_model
from reseed.models.names import ModelSpec
from reseed.models.sizes import Size, described, sizes
from reseed.models.tokenizers import load_tokenizer
from reseed.problems import Problem
from reseed.recipe import TrainingSettings
from reseed.records import LossPoint, ReseedError, Row
from reseed.training.adapters import adapter_digest, add_adapter, check_stock_names, verify_adapter
from reseed.training.checkpoints import check_origin, origin_of, prepare_work
from reseed.training.divided import is_divided, verify_divided
from reseed.training.prompts import prompt_format
from reseed.training.tokens import encode
from reseed.training.zero import deepspeed_settings, join_ranks

if TYPE_CHECKING:
    pass


@dataclass(frozen=True)
class TrainJob:
    """What every rank of one member needs to know."""

    model: ModelSpec
    settings: TrainingSettings
    seed: int
    world: int
    micro_batch_size: int
    deepspeed: bool = True


@dataclass(frozen=True)
class TrainSummary:
    """What rank 0 knows at the end. `adapter_digest_start` is the fresh adapter's, before the first step."""

    best_step: int
    best_loss: float
    steps: int
    shortened_rows: int
    dropped_rows: int
    adapter_digest_start: str
    logit_shift: float
    tokens_seen: int
    parameters: dict[str, Size]  # by group, on rank 0
    curve: tuple[LossPoint, ...]


class Watcher(Protocol):
    """Whoever listens to one rank's loop: Ray Train, a tracker, a test."""

    def note(self, text: str) -> None:
        """A line for whoever follows the run; rank 0 only."""
        ...

    def point(self, point: LossPoint) -> None:
        """A new point of the loss curve; rank 0 only."""
        ...

    def checkpoint(self, folder: Path, step: int) -> None:
        """A complete checkpoint lies in `folder`; every rank, after the same step."""
        ...


def train(
    job: TrainJob,
    problem: Problem,
    train_rows: Sequence[Row],
    validation_rows: Sequence[Row],
    work: Path,
    watcher: Watcher,
    resume: Path | None = None,
) -> TrainSummary | None:
    """Train one member's adapter in folder `work`; the best step's two files end in `work/best/adapter`.

    Returns the summary on rank 0, None elsewhere. With `resume`, a folder that `Watcher.checkpoint` was given, the run
    goes on as if it had never stopped.
    """
    hush()
    folder = materialise(job.model)
    tokenizer = load_tokenizer(folder)
    settings, style = job.settings, prompt_format(job.settings)
    encoded = [
        encode(problem, rows, tokenizer, settings.max_tokens, settings.loss_on, style, settings.too_long)
        for rows in (train_rows, validation_rows)
    ]
    check_model_context(folder, job.settings.max_tokens)
    origin = origin_of(job, folder, train_rows)
    if resume is not None:
        check_origin(resume, origin)
    from reseed.training.trainer import barrier, build_trainer

    arguments = training_arguments(job, len(encoded[0].examples), work)  # first: it starts the process group
    if job.deepspeed:
        join_ranks()
    model = add_adapter(load_model(folder, job.model), job.settings, job.seed)
    fresh = adapter_digest(model)
    groups = sizes(model)
    if arguments.process_index == 0:
        watcher.note(described(groups))
    if arguments.local_process_index == 0:  # the ranks of a node share the folder
        prepare_work(work, origin, resume)
    barrier()
    trainer = build_trainer(
        model, arguments, encoded[0].examples, encoded[1].examples, tokenizer.pad_token_id, job, watcher
    )
    if job.deepspeed and not trainer.is_deepspeed_enabled:
        raise ReseedError("training: DeepSpeed was asked for but is off; unset ACCELERATE_USE_CPU in the worker")
    trainer.train(resume_from_checkpoint=str(work / "checkpoint-resumed") if resume is not None else None)
    adapter = work / "best" / "adapter"
    divided = is_divided(model)
    shift = verify_divided(model, adapter, tokenizer) if divided else 0.0
    if not trainer.is_world_process_zero():
        return None
    best = json.loads((work / "best" / "best.json").read_text())
    curve = tuple(LossPoint(**point) for point in best.pop("curve"))
    if not divided:
        shift = verify_adapter(adapter, model.unload(), tokenizer)  # a second copy of a large model would not fit
    check_stock_names(adapter, folder)
    return TrainSummary(
        best_step=best["step"],
        best_loss=best["loss"],
        steps=trainer.state.global_step,
        shortened_rows=sum(part.shortened for part in encoded),
        dropped_rows=sum(part.dropped for part in encoded),
        adapter_digest_start=fresh,
        logit_shift=shift,
        tokens_seen=sum(len(example.ids) for example in encoded[0].examples),
        parameters={group.name: group for group in groups},
        curve=curve,
    )


def check_model_context(folder: Path, max_tokens: int) -> None:
    """Refuse rows longer than the model can attend to."""
    config = json.loads((folder / "config.json").read_text())
    context = config.get("max_position_embeddings")
    if context is not None and max_tokens > context:
        raise ReseedError(f"training.max_tokens: {max_tokens} is more than the model's context of {context}; lower it")


def micro_batch(batch: int, world: int, most: int) -> int:
    """Rows that one worker takes at once. Raises ReseedError when a step's rows cannot be shared evenly."""
    micro = min(most, max(1, batch // world))
    if batch % (micro * world):
        raise ReseedError(
            f"training.batch_size: {batch} rows a step cannot be shared by {world} workers in "
            f"micro-batches of {micro}; choose a multiple of {micro * world}"
        )
    return micro


def training_arguments(job: TrainJob, rows: int, work: Path) -> Any:
    """transformers' TrainingArguments of one rank."""
    import torch
    from transformers import TrainingArguments

    settings = job.settings
    cuda = torch.cuda.is_available()
    dtype = job.model.dtype
    micro = micro_batch(settings.batch_size, job.world, job.micro_batch_size)
    return TrainingArguments(
        output_dir=str(work),
        seed=job.seed,
        data_seed=job.seed,
        num_train_epochs=settings.epochs,
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=settings.batch_size // (micro * job.world),
        learning_rate=settings.learning_rate,
        warmup_steps=settings.warmup_steps,
        lr_scheduler_type="linear",
        weight_decay=0.0,
        max_grad_norm=1.0,
        bf16=dtype == "bfloat16" and job.deepspeed,
        fp16=dtype == "float16" and job.deepspeed,
        use_cpu=not cuda,
        deepspeed=deepspeed_settings(settings, dtype) if job.deepspeed else None,
        eval_strategy="steps",
        eval_steps=settings.evaluate_every,
        save_strategy="steps",
        save_steps=settings.evaluate_every,
        logging_steps=max(1, settings.evaluate_every // 4),
        logging_nan_inf_filter=False,  # it would hide a loss that is no number
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=cuda,
        gradient_checkpointing=False,
    )


def best_record(step: int, loss: float, curve: Sequence[LossPoint]) -> str:
    """The text of `best.json`."""
    return json.dumps({"step": step, "loss": loss, "curve": [asdict(point) for point in curve]})
