"""Loading a model by its spec."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from reseed.models.cache import first_line
from reseed.models.names import ModelSpec
from reseed.records import ReseedError


def load_model(folder: Path, spec: ModelSpec) -> Any:
    """The causal language model in `folder`, in the spec's dtype, on the accelerator of this process if it has one.

    Mixtral runs its experts with `grouped_mm`: 1.6 × faster than `eager` here, while `batched_mm` copies the weights
    for every token and runs out of memory in training.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config = AutoConfig.from_pretrained(folder)
        options = {"experts_implementation": "grouped_mm"} if hasattr(config, "num_local_experts") else {}
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, spec.dtype), **options)
    except (OSError, ValueError) as error:
        raise ReseedError(f"model '{spec.name}' cannot be loaded: {first_line(error)}") from error
    return model.to("cuda") if torch.cuda.is_available() else model
