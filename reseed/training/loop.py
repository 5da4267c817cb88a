"""The training loop of one rank, the same under Ray Train, under torchrun and in a notebook."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reseed.language.prompts import prompt_format
from reseed.language.tokens import Encoded, encode
from reseed.models.adapters import (
    adapter_digest,
    add_adapter,
    check_stock_names,
    continue_adapter,
    verify_adapter,
)
from reseed.models.cache import materialise
from reseed.models.loading import hush, load_model
from reseed.models.sizes import Size, sizes, sizes_text
from reseed.models.tokenizers import load_tokenizer
from reseed.problems import Problem
from reseed.records import LossPoint, ReseedError, Row
from reseed.training.arguments import check_worker, training_arguments
from reseed.training.checkpoints import Origin, check_origin, origin_of, prepare_work
from reseed.training.early import stopped_early
from reseed.training.job import TrainJob, TrainSummary, Watcher
from reseed.training.memory.out_of_memory import memory_explained
from reseed.training.metric import ValidationMetric
from reseed.training.zero.settings import join_ranks
from reseed.training.zero.sharded import is_sharded, unsharded, verify_sharded
from reseed.training.zero.unpickling import only_tensors

if TYPE_CHECKING:
    from reseed.training.trainer import AdapterTrainer


def train(
    job: TrainJob,
    problem: Problem,
    train_rows: Sequence[Row],
    validation_rows: Sequence[Row],
    work: Path,
    watcher: Watcher,
    resume: Path | None = None,
    start: Path | None = None,
) -> TrainSummary | None:
    """Train one member's adapter in folder `work`, and leave the best step's two files in `work/best/adapter`.

    Returns the summary on rank 0, None elsewhere. `resume` is a folder that `Watcher.checkpoint` was given: the run goes on
    as if it had never stopped. `start` is a trained member's artifact: its adapter is continued instead of a fresh one.
    """
    hush()
    check_worker(job.settings, job.model)
    inputs = prepare_inputs(job, problem, train_rows, validation_rows, start)
    if resume is not None:
        check_origin(resume, inputs.origin)
    arguments = training_arguments(job, len(inputs.training.examples), work)  # first: it starts the process group
    model = load_with_adapter(job, inputs.folder, start)
    digest_at_start, groups = adapter_digest(model), sizes(model)
    if arguments.process_index == 0:
        watcher.note(sizes_text(groups))
    trainer = prepare_trainer(model, arguments, inputs, job, watcher, resume, start)
    if job.judge is not None:
        trainer.metric = ValidationMetric(problem, validation_rows, inputs.tokenizer, job, job.judge)
    with memory_explained(job):
        run_trainer(trainer, work, job.settings.patience, resume is not None)
    shift = verify_saved(model, work / "best" / "adapter", inputs.tokenizer, trainer.is_world_process_zero())
    if not trainer.is_world_process_zero():
        return None
    with unsharded():
        check_stock_names(work / "best" / "adapter", inputs.folder)
    return summary_of(trainer, work, inputs, digest_at_start, shift, groups)


@dataclass(frozen=True)
class RunInputs:
    """What a run needs besides its model."""

    folder: Path  # of the model
    tokenizer: Any
    training: Encoded
    validation: Encoded
    origin: Origin


def prepare_inputs(
    job: TrainJob, problem: Problem, train_rows: Sequence[Row], validation_rows: Sequence[Row], start: Path | None
) -> RunInputs:
    """Fetch the model, tokenise the rows, and note which run this is."""
    folder = materialise(job.model)
    tokenizer = load_tokenizer(folder)
    training, validation = (encode_rows(job, problem, rows, tokenizer) for rows in (train_rows, validation_rows))
    check_model_context(folder, job.settings.max_tokens)
    origin = origin_of(job, folder, train_rows, validation_rows, start)
    return RunInputs(folder, tokenizer, training, validation, origin)


def encode_rows(job: TrainJob, problem: Problem, rows: Sequence[Row], tokenizer: Any) -> Encoded:
    """Tokenise rows as the training settings say."""
    settings = job.settings
    style = prompt_format(settings)
    return encode(problem, rows, tokenizer, settings.max_tokens, settings.loss_on, style, settings.too_long)


def summary_of(
    trainer: AdapterTrainer, work: Path, inputs: RunInputs, digest_at_start: str, shift: float, groups: Sequence[Size]
) -> TrainSummary:
    """The summary of a finished run, on rank 0."""
    best = json.loads((work / "best" / "best.json").read_text())
    return TrainSummary(
        best_step=best["step"],
        best_loss=best["loss"],
        best_metric=best["metric"],
        steps=trainer.state.global_step,
        shortened_rows=inputs.training.shortened + inputs.validation.shortened,
        dropped_rows=inputs.training.dropped + inputs.validation.dropped,
        adapter_digest_start=digest_at_start,
        logit_shift=shift,
        tokens_seen=trainer.state.num_input_tokens_seen,
        parameters={group.name: group for group in groups},
        curve=tuple(LossPoint(**point) for point in best["curve"]),
    )


def verify_saved(model: Any, adapter: Path, tokenizer: Any, first_rank: bool) -> float:
    """Load the saved adapter again; return how far it moves the logits. Under ZeRO-3 all ranks take part, else the first."""
    if is_sharded(model):
        return verify_sharded(model, adapter, tokenizer)
    return verify_adapter(adapter, model.unload(), tokenizer) if first_rank else 0.0  # a second base would not fit


def load_with_adapter(job: TrainJob, folder: Path, start: Path | None) -> Any:
    """Load the model with the member's adapter: a fresh one, or the one that it continues."""
    if job.deepspeed:
        join_ranks()
    with memory_explained(job):
        model = load_model(folder, job.model)
        if start is None:
            model = add_adapter(model, job.settings, job.seed)
        else:
            model = continue_adapter(model, job.settings, job.seed, start / "adapter")
    if job.settings.gradient_checkpointing:
        model.enable_input_require_grads()  # the base is frozen, and a reentrant checkpoint passes on what has a gradient
    return model


def prepare_trainer(
    model: Any,
    arguments: Any,
    inputs: RunInputs,
    job: TrainJob,
    watcher: Watcher,
    resume: Path | None,
    start: Path | None,
) -> AdapterTrainer:
    """Set up the node's work folder, then build this rank's trainer."""
    from reseed.training.trainer import ContinueOptimizer, barrier, build_trainer

    if arguments.local_process_index == 0:  # the ranks of a node share the folder
        prepare_work(Path(arguments.output_dir), inputs.origin, resume)
    barrier()
    pad, validation = inputs.tokenizer.pad_token_id, inputs.validation.examples
    trainer = build_trainer(model, arguments, inputs.training, validation, pad, job, watcher)
    if start is not None and job.settings.keep_optimizer:
        trainer.add_callback(ContinueOptimizer(start))
    return trainer


def run_trainer(trainer: Any, work: Path, patience: int | None, resumed: bool) -> None:
    """Train, from the checkpoint in `work` if the run is resumed. A run that had already stopped early is not trained on."""
    if trainer.args.deepspeed and not trainer.is_deepspeed_enabled:
        raise ReseedError("training: DeepSpeed was asked for but is off; unset ACCELERATE_USE_CPU in the worker")
    checkpoint = work / "checkpoint-resumed"
    if resumed and stopped_early(work / "best" / "best.json", patience):
        trainer.state = trainer.state.load_from_json(str(checkpoint / "trainer_state.json"))
    else:
        with only_tensors(bool(trainer.args.deepspeed)):
            trainer.train(resume_from_checkpoint=str(checkpoint) if resumed else None)


def check_model_context(folder: Path, max_tokens: int) -> None:
    """Refuse rows longer than the model can attend to."""
    config = json.loads((folder / "config.json").read_text())
    context = config.get("text_config", config).get("max_position_embeddings")  # nested where a model reads images too
    if context is not None and max_tokens > context:
        raise ReseedError(f"training.max_tokens: {max_tokens} is more than the model's context of {context}; lower it")
