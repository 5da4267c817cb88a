"""Loading a model by its spec."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from reseed.mistakes import first_line
from reseed.models.names import ModelSpec
from reseed.records import ReseedError


def hush() -> None:
    """Silence bitsandbytes before PEFT imports it: on some CPUs every process would warn of a missing inference kernel."""
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


@contextmanager
def quietly() -> Iterator[None]:
    """Within the block transformers shows no progress bars and gives no advice."""
    from transformers.utils import logging as said

    bars, level = said.is_progress_bar_enabled(), said.get_verbosity()
    said.disable_progress_bar()
    said.set_verbosity_error()
    try:
        yield
    finally:
        said.set_verbosity(level)
        if bars:
            said.enable_progress_bar()


def attention_of(config: Any) -> dict[str, str]:
    """The attention that a model needs, as an option of `from_pretrained`; empty if transformers' own choice will do.

    Gemma 2 caps the scores before the softmax. PyTorch's scaled dot product cannot, yet transformers passes it
    the cap, which is silently ignored; flex attention can, but has to be compiled on every machine.
    """
    cap = getattr(config.get_text_config(), "attn_logit_softcapping", None)
    return {} if cap is None else {"attn_implementation": "eager"}


def load_options(spec: ModelSpec) -> dict[str, Any]:
    """Options of `from_pretrained`: dtype, device and quantisation."""
    import torch
    from transformers.integrations import is_deepspeed_zero3_enabled

    options: dict[str, Any] = {"dtype": getattr(torch, spec.dtype), "use_safetensors": True}
    if torch.cuda.is_available() and not is_deepspeed_zero3_enabled():  # else the model would go through host memory
        options["device_map"] = {"": torch.cuda.current_device()}
    if spec.four_bit is not None:
        from reseed.models.four_bit import quantisation_options

        options |= quantisation_options(spec)
    return options


def load_model(folder: Path, spec: ModelSpec) -> Any:
    """Load the causal language model in `folder` as the spec says, onto this process's accelerator if it has one.

    A Mixtral runs its experts with `grouped_mm`: 1.6 times as fast as `eager` here, while `batched_mm` copies the
    weights for every token and runs out of memory in training. In 4 bit or with LoRA its experts are Linear modules.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    hush()
    options = load_options(spec)
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        mixture = hasattr(config, "num_local_experts")
        options |= attention_of(config)
        if mixture and (spec.four_bit is not None or spec.separate_experts):
            from reseed.models.experts import load_separate

            model = load_separate(folder, config.model_type, **options)
        else:
            fused = {"experts_implementation": "grouped_mm"} if mixture else {}
            model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=False, **options, **fused)
    except (OSError, ValueError, ImportError) as error:
        raise ReseedError(f"model '{spec.name}' cannot be loaded: {first_line(error)}") from error
    if spec.four_bit is not None:
        from reseed.models.four_bit import check_four_bit

        check_four_bit(model, spec.name)
    return model
