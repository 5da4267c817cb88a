"""Continuing prompts with a model until it stops: for an engine, and for the metric while a member trains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from reseed.records import Sampling


@dataclass(frozen=True)
class Written:
    """An answer: the tokens before the stop, and whether there was one."""

    tokens: list[int]
    stopped: bool


def write(model: Any, tokenizer: Any, prompts: Sequence[list[int]], sampling: Sampling) -> list[Written]:
    """Answer each prompt, given as token ids. Several ranks call this together, each with prompts of its own."""
    import torch
    from transformers import LogitsProcessorList

    from reseed.language.nucleus import Nucleus

    drawn = sampling.temperature > 0
    stops = stop_tokens(model, tokenizer)
    padded = tokenizer.pad({"input_ids": list(prompts)}, padding_side="left", return_tensors="pt").to(model.device)
    with torch.inference_mode():
        out = model.generate(
            **padded,
            max_new_tokens=sampling.max_new_tokens,
            do_sample=drawn,
            temperature=1.0,  # the Nucleus does what these three would
            top_p=1.0,
            top_k=0,
            logits_processor=LogitsProcessorList([Nucleus(sampling.temperature, sampling.top_p)] if drawn else []),
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=stops,
            # a rank that has stopped goes on with the others: a sharded model gathers its weights for every token
            synced_gpus=torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1,
        )
    return [cut_at_stop(tokens, stops) for tokens in out[:, padded["input_ids"].shape[1] :].tolist()]


def cut_at_stop(tokens: Sequence[int], stops: Sequence[int]) -> Written:
    """The tokens before the first stop."""
    end = next((place for place, token in enumerate(tokens) if token in stops), None)
    return Written(list(tokens[:end]), end is not None)


def stop_tokens(model: Any, tokenizer: Any) -> list[int]:
    """The tokenizer's EOS and the model's own: Gemma ends a turn with `<end_of_turn>`, which is not its EOS."""
    own = model.generation_config.eos_token_id
    ends = own if isinstance(own, list) else [own]
    return sorted({tokenizer.eos_token_id, *(token for token in ends if token is not None)})
