"""transformers' Trainer with a token-weighted loss, an evaluation of our own, and the best adapter kept."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import Trainer, TrainerCallback

from reseed.files import digest
from reseed.language.tokens import Encoded, Example
from reseed.models.adapters import save_adapter
from reseed.records import LossPoint, ReseedError
from reseed.training.checkpoints import assemble_checkpoint
from reseed.training.cpu_attention import use_blockwise
from reseed.training.early import is_better, out_of_patience
from reseed.training.finite import StepLosses
from reseed.training.layout import Layout, check_attention, layout_of
from reseed.training.loss import evaluation_loss, label_count, summed_loss
from reseed.training.moments import gather_moments, load_moments, restore_moments, save_moments
from reseed.training.order import SeededOrder
from reseed.training.zero.sharded import is_sharded, whole_adapter

if TYPE_CHECKING:
    from reseed.training.job import TrainJob, Watcher
    from reseed.training.metric import ValidationMetric


class AdapterTrainer(Trainer):
    """A Trainer whose loss is the mean over label tokens, in training and evaluation alike, whatever the batch shapes."""

    examples: Sequence[Example]
    layout: Layout
    group: int  # rows of similar length that all ranks take at once; 1: drawn without regard to length
    losses: StepLosses
    metric: ValidationMetric | None = None
    control: Any

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
        """This rank's part of the step's mean loss, times the number of ranks, because they average their gradients."""
        loss, _ = summed_loss(model, inputs, self.layout.prompt_weight)
        self.losses.add(inputs["input_ids"], loss)
        if num_items_in_batch is None:
            raise ReseedError("training: the step's number of label tokens is unknown, the loss would be mis-scaled")
        mine: torch.Tensor = loss / num_items_in_batch * self.accelerator.num_processes
        return mine

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: Any) -> tuple[list[Any], Any]:
        """One step's micro-batches, and the weight of all their labels on all ranks.

        The Trainer's own count depends on the name of the model's class: without "ForCausalLM" in it, it includes each
        row's first token, which nothing predicts.
        """
        batches = list(islice(epoch_iterator, num_batches))
        self._count_tokens(batches, device)
        mine = torch.stack([label_count(batch, self.layout.prompt_weight) for batch in batches]).sum()
        return batches, self.accelerator.gather(mine.to(device)).sum()

    def _count_tokens(self, batches: Sequence[dict[str, torch.Tensor]], device: Any) -> None:
        """Add a step's tokens on all ranks, without padding, to the running count, which checkpoints keep."""
        own = [(batch["input_ids"] != self.layout.pad).sum() for batch in batches]
        self.state.num_input_tokens_seen += int(self.accelerator.gather(torch.stack(own).sum().to(device)).sum())

    def _get_train_sampler(self, train_dataset: Any = None) -> SeededOrder:
        lengths = [len(example.ids) for example in self.train_dataset]
        return SeededOrder(lengths, self.group, self.args.data_seed, lambda: int(self.state.epoch or 0))

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """The mean loss over the validation rows' label tokens, and the problem's metric where it chooses."""
        size, rank, world = self.args.per_device_train_batch_size, self.args.process_index, self.args.world_size
        loss = evaluation_loss(self.model, self.examples, self.layout, size, rank, world)
        metrics = {"eval_loss": loss}
        if self.metric is not None and math.isfinite(loss):
            metrics["eval_metric"] = self.metric.measure(self.model, rank, world)
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save the adapter. Under ZeRO-3 the Trainer would gather the whole model, layer by layer, to write it."""
        if not is_sharded(self.model):
            super().save_model(output_dir, _internal_call)
            return
        with whole_adapter(self.model):
            if self.args.should_save:
                self._save(output_dir)


def barrier() -> None:
    """Wait for all ranks, if there are several."""
    if torch.distributed.is_initialized():
        torch.distributed.barrier()


def check_loss(loss: float, name: str, step: int) -> None:
    """End the run if a loss is NaN or infinite, on all ranks alike: they see the same value."""
    if not math.isfinite(loss):
        raise ReseedError(f"training: the {name} is {loss} at step {step}; lower training.learning_rate")


def check_metric(metric: float | None, step: int) -> None:
    """End the run if the metric is NaN, which no comparison would ever replace as the best."""
    if metric is not None and math.isnan(metric):
        raise ReseedError(
            f"training: the problem's metric is nan at step {step}; its `scores` must be numbers whatever the answers "
            "are, or set training.choose_by: loss"
        )


class StopAtNan(TrainerCallback):
    """Ends the run before a loss that is NaN or infinite reaches the weights."""

    def __init__(self, losses: StepLosses) -> None:
        self.losses = losses

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Check the step's losses. With DeepSpeed the weights are already spoilt by now, but not yet saved."""
        self.losses.check(state.global_step + 1, args.save_steps)


class OwnDropout(TrainerCallback):
    """Gives every rank but the first a random state of its own once all have drawn the same LoRA weights, or all ranks would
    use the same dropout masks. A resumed run restores the states of its checkpoint."""

    def __init__(self, seed: int, rank: int) -> None:
        self.seed, self.rank = seed, rank

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Seed by a digest: seed + rank would make seed 0's second rank equal to seed 1's first."""
        if self.rank > 0:
            torch.manual_seed(int(digest([self.seed, self.rank], 8), 16))


class ContinueOptimizer(TrainerCallback):
    """Starts the optimiser, which exists only once training begins, from the state stored with the continued adapter."""

    def __init__(self, start: Path) -> None:
        self.start = start

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Restore the stored state, except in a run resumed from a checkpoint, which has its own."""
        if state.global_step == 0:
            restore_moments(kwargs["model"], kwargs["optimizer"], load_moments(self.start))


class KeepBest(TrainerCallback):
    """Keeps the loss curve and the best adapter so far, and hands whole checkpoints to the watcher."""

    def __init__(self, work: Path, job: TrainJob, watcher: Watcher, rank: int) -> None:
        self.work, self.model_name, self.watcher, self.rank = work, job.model.name, watcher, rank
        self.patience, self.keep_optimizer = job.settings.patience, job.settings.keep_optimizer
        self.higher_is_better = job.judge is None or job.judge.higher_is_better
        best = work / "best" / "best.json"
        fresh: dict[str, Any] = {"step": 0, "loss": float("inf"), "metric": None, "curve": []}
        known = json.loads(best.read_text()) if best.is_file() else fresh
        self.step, self.loss, self.metric = known["step"], known["loss"], known["metric"]
        self.curve = [LossPoint(**point) for point in known["curve"]]

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Evaluate and save at the last step too, and log before every save: a resumed run begins a new mean there."""
        if state.global_step >= state.max_steps:
            control.should_evaluate = control.should_save = True
        control.should_log |= control.should_save

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        """Add a point to the training curve."""
        loss = (logs or {}).get("loss")
        if loss is not None:
            check_loss(loss, "loss", state.global_step)
            self._add(LossPoint(state.global_step, train=loss))

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: dict[str, float], **kwargs: Any) -> None:
        """Add a point to the validation curve; rank 0 saves a new best adapter."""
        loss, metric = metrics["eval_loss"], metrics.get("eval_metric")
        check_loss(loss, "validation loss", state.global_step)
        check_metric(metric, state.global_step)
        self._add(LossPoint(state.global_step, validation=loss, metric=metric))
        if is_better(loss, metric, self.loss, self.metric, self.higher_is_better):
            self.step, self.loss, self.metric = state.global_step, loss, metric
            moments = gather_moments(kwargs["model"], kwargs["optimizer"]) if self.keep_optimizer else {}
            with whole_adapter(kwargs["model"]):
                if self.rank == 0:
                    self._keep(kwargs["model"], moments)
        if self.rank == 0:
            record = {"step": self.step, "loss": self.loss, "metric": self.metric}
            record["curve"] = [asdict(point) for point in self.curve]
            (self.work / "best" / "best.json").write_text(json.dumps(record))
        control.should_training_stop |= out_of_patience(self.patience, self.step, self.curve)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Assemble the checkpoint that a run can resume from, and hand it to the watcher."""
        whole = self.work / f"whole-{state.global_step}"
        barrier()  # every rank has written its part
        if args.local_process_index == 0:
            assemble_checkpoint(self.work, state.global_step, self.rank)
        barrier()
        self.watcher.checkpoint(whole, state.global_step)
        barrier()
        if args.local_process_index == 0:
            shutil.rmtree(whole)

    def _keep(self, model: Any, moments: dict[str, torch.Tensor]) -> None:
        fresh = self.work / "best-new"
        shutil.rmtree(fresh, ignore_errors=True)
        save_adapter(model, fresh / "adapter", self.model_name)
        if moments:
            save_moments(moments, fresh)
        shutil.rmtree(self.work / "best", ignore_errors=True)
        fresh.rename(self.work / "best")

    def _add(self, point: LossPoint) -> None:
        self.curve.append(point)
        if self.rank == 0:
            self.watcher.point(point)


def build_trainer(
    model: Any,
    arguments: Any,
    training: Encoded,
    validation_examples: Sequence[Example],
    pad: int,
    job: TrainJob,
    watcher: Watcher,
) -> AdapterTrainer:
    """Build the Trainer of one rank, with its callbacks."""
    layout, losses = layout_of(job.settings, pad), StepLosses(training.examples, training.ids)
    use_blockwise(model)
    check_attention(model, layout)
    keep = KeepBest(Path(arguments.output_dir), job, watcher, arguments.process_index)
    trainer = AdapterTrainer(
        model=model,
        args=arguments,
        train_dataset=list(training.examples),
        eval_dataset=list(validation_examples),
        data_collator=layout,
        callbacks=[keep, StopAtNan(losses), OwnDropout(job.order_seed, arguments.process_index)],
    )
    trainer.examples, trainer.layout, trainer.losses = validation_examples, layout, losses
    trainer.group = arguments.per_device_train_batch_size * job.world if job.settings.group_by_length else 1
    trainer.model_accepts_loss_kwargs = True  # the Trainer then counts the label tokens of the whole step
    return trainer
