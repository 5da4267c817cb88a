"""Reading a checkpoint must run no code: others may be able to write there, and DeepSpeed unpickles whatever it finds."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from reseed.records import ReseedError

FORCE, FORBID = "TORCH_FORCE_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"


@contextmanager
def only_tensors(deepspeed: bool) -> Iterator[None]:
    """Within the block `torch.load` creates only tensors, plain values and DeepSpeed's few records of numbers and names.

    It is set by the environment, which overrides a caller's `weights_only=False`.
    """
    import torch

    before = {name: os.environ.pop(name, None) for name in (FORCE, FORBID)}  # torch refuses both at once
    os.environ[FORCE] = "1"
    try:
        with torch.serialization.safe_globals(deepspeed_records() if deepspeed else []):
            yield
    except pickle.UnpicklingError as error:  # its text is long advice; what it met is in the error before
        raise ReseedError(
            f"training: the checkpoint holds more than tensors, and reading that could run somebody's code: "
            f"{str(error.__context__ or error).splitlines()[0]}; find out who wrote it, remove it and begin anew"
        ) from error
    finally:
        os.environ.update({name: value for name, value in before.items() if value is not None})
        if before[FORCE] is None:
            del os.environ[FORCE]


def deepspeed_records() -> list[Any]:
    """The classes in DeepSpeed's checkpoints, whatever the ZeRO stage, besides tensors and plain values."""
    from deepspeed.runtime.fp16.loss_scaler import DynamicLossScaler, LossScaler
    from deepspeed.runtime.zero.config import ZeroStageEnum
    from deepspeed.utils.tensor_fragment import fragment_address

    return [DynamicLossScaler, LossScaler, ZeroStageEnum, fragment_address]
