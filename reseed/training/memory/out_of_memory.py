"""Out of memory: what was attempted, and what to change."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from reseed.mistakes import first_line
from reseed.records import ReseedError
from reseed.training.arguments import micro_batch

if TYPE_CHECKING:
    from reseed.training.job import TrainJob


@contextmanager
def memory_explained(job: TrainJob) -> Iterator[None]:
    """Turn a failed allocation, on a GPU or not, into a ReseedError that says what to change."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise ReseedError(
            f"training: out of memory with {attempt_of(job)} ({first_line(error)}); {', or '.join(cures(job))}"
        ) from error


def is_out_of_memory(error: BaseException) -> bool:
    """True for torch's error on a GPU, its allocator's on the CPU, and Python's own."""
    import torch

    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


def attempt_of(job: TrainJob) -> str:
    """The settings that a step's memory depends on, in words."""
    settings, rows = job.settings, micro_batch(job.settings.batch_size, job.world, job.micro_batch_size)
    checkpointing = "" if settings.gradient_checkpointing else "out"
    return (
        f"{rows} row{'s' if rows > 1 else ''} a worker of up to {settings.max_tokens} tokens, {job.model.dtype}, rank "
        f"{settings.rank}, with{checkpointing} gradient checkpointing"
    )


def cures(job: TrainJob) -> list[str]:
    """What makes a step smaller, cheapest first. Activations grow with the rows and tokens taken at once."""
    settings, rows = job.settings, micro_batch(job.settings.batch_size, job.world, job.micro_batch_size)
    found = []
    if rows > 1:
        found.append(
            f"lower the profile's training.micro_batch_size to {rows // 2} (the result stays, the activations halve)"
        )
    if not settings.gradient_checkpointing:
        found.append("set training.gradient_checkpointing to true (one layer's activations at a time, a third slower)")
    if settings.method == "lora":
        found.append("set training.method to qlora (the base in 4 bit)")
    if job.world > 1 and settings.zero_stage < 3:
        found.append(
            "set training.zero_stage to 3, with gradient checkpointing (the base is sharded across the workers)"
        )
    elif settings.zero_stage == 3 and settings.offload == "none":
        found.append("set training.offload to parameters (the base waits in the machine's memory)")
    return [*found, f"lower training.max_tokens to {max(16, settings.max_tokens // 2)}"]
