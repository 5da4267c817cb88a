"""The training settings as transformers' TrainingArguments, and a check for settings that a place cannot run."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reseed.models.names import ModelSpec
from reseed.records import ReseedError
from reseed.settings import TrainingSettings
from reseed.training.zero.settings import deepspeed_settings

if TYPE_CHECKING:
    from reseed.training.job import TrainJob

OPTIMIZERS = {"adamw": "adamw_torch_fused", "adamw-8bit": "adamw_bnb_8bit", "paged-adamw-8bit": "paged_adamw_8bit"}
SCHEDULES = {"linear": "linear", "cosine": "cosine", "cyclic": "cosine_with_restarts"}


def check_place(settings: TrainingSettings, model: ModelSpec, cuda: bool) -> None:
    """Refuse settings that need a GPU where there is none, before anything heavy starts. Raises ReseedError."""
    if cuda:
        return
    if settings.optimizer != "adamw":
        raise ReseedError(
            f"training.optimizer: '{settings.optimizer}' needs a GPU, and the workers have none; choose adamw, or give "
            "the profile's training section gpus"
        )
    if model.dtype == "float16":
        raise ReseedError(
            f"model '{model.name}': float16 is trained on a GPU only, with a loss scale, and the workers have none; "
            "choose bfloat16 or float32 as the student's dtype"
        )


def check_worker(settings: TrainingSettings, model: ModelSpec) -> None:
    """The same check for this process, which may differ from what the profile promised."""
    import torch

    check_place(settings, model, torch.cuda.is_available())
    if settings.optimizer != "adamw" and find_spec("bitsandbytes") is None:
        raise ReseedError(
            f"training.optimizer: '{settings.optimizer}' needs the package bitsandbytes, which the worker lacks; "
            "pip install bitsandbytes, or choose adamw"
        )


def micro_batch(batch: int, world: int, most: int) -> int:
    """How many rows one worker takes at once. Raises ReseedError if a step's rows cannot be shared out evenly."""
    micro = min(most, max(1, batch // world))
    if batch % (micro * world):
        raise ReseedError(
            f"training.batch_size: {batch} rows a step cannot be shared by {world} workers in "
            f"micro-batches of {micro}; choose a multiple of {micro * world}"
        )
    return micro


def optimisation(settings: TrainingSettings) -> dict[str, Any]:
    """Optimiser and schedule. DeepSpeed's settings name none, so it uses what the Trainer creates.

    Cyclic is transformers' cosine with hard restarts: after the warm-up, the learning rate falls `cycles` times along
    half a cosine from the full value to 0.
    """
    return {
        "optim": OPTIMIZERS[settings.optimizer],
        "learning_rate": settings.learning_rate,
        "lr_scheduler_type": SCHEDULES[settings.schedule],
        "lr_scheduler_kwargs": {"num_cycles": settings.cycles} if settings.schedule == "cyclic" else None,
        "warmup_steps": settings.warmup_steps,
        "weight_decay": settings.weight_decay,
        "max_grad_norm": settings.max_grad_norm,
    }


def precision(dtype: str) -> dict[str, bool]:
    """The Trainer's precision. The model is loaded in `dtype`, while PEFT keeps the LoRA weights in float32.

    In 16 bit the Trainer's autocast lets LoRA compute like the layers around it (in float32 it took a tenth of a step),
    and DeepSpeed, which casts every weight and keeps float32 copies of the trained ones, must use the same dtype.
    float16 also needs the Trainer's loss scale, or small gradients become 0.
    """
    return {"bf16": dtype == "bfloat16", "fp16": dtype == "float16"}


def training_arguments(job: TrainJob, rows: int, work: Path) -> Any:
    """transformers' TrainingArguments of one rank."""
    import torch
    from transformers import TrainingArguments

    settings = job.settings
    cuda = torch.cuda.is_available()
    micro = micro_batch(settings.batch_size, job.world, job.micro_batch_size)
    return TrainingArguments(
        output_dir=str(work),
        seed=job.order_seed,
        data_seed=job.order_seed,
        num_train_epochs=settings.epochs,
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=settings.batch_size // (micro * job.world),
        **optimisation(settings),
        **precision(job.model.dtype),
        use_cpu=not cuda,
        deepspeed=deepspeed_settings(settings, job.model.dtype) if job.deepspeed else None,
        eval_strategy="steps",
        eval_steps=settings.evaluate_every,
        save_strategy="steps",
        save_steps=settings.evaluate_every,
        logging_steps=max(1, settings.evaluate_every // 4),
        logging_nan_inf_filter=False,  # it would hide a loss that is NaN or infinite
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=cuda,
        gradient_checkpointing=settings.gradient_checkpointing,
        # ZeRO-3 frees weights after the forward pass, which torch's check of recomputed tensors would take for a mistake
        gradient_checkpointing_kwargs={"use_reentrant": settings.zero_stage > 2},
    )
