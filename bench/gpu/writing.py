"""The engine on the card: answers a second, and Gemma 2's soft cap as it is loaded."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import torch
from gpu.setup import Row, Setup, gemma, measured, mixtral, passages, tried

from reseed.generation.engines.transformers_engine import TransformersEngine
from reseed.models.names import ModelSpec
from reseed.records import Prompt, Sampling


def engine(setup: Setup) -> Iterator[Row]:
    """A Mixtral and a Gemma 2, the latter's logits beside those of transformers' eager reference."""
    yield tried("mixtral", lambda: answered(setup, mixtral(setup)))
    yield tried("gemma 2", lambda: answered(setup, gemma(setup)) | {"logits off by": off_eager(setup)})


def answered(setup: Setup, spec: ModelSpec) -> Row:
    """Greedy answers to as many prompts as the GPU profiles' batches hold."""
    count, tokens = (4, 8) if setup.tiny else (64, 128)
    row: Row = {"prompts": count}

    def work() -> None:
        row.update(written(spec, count, tokens))

    _, peak = measured(work, setup.device)
    return row | ({} if peak is None else {"peak GiB": peak / 2**30})


def written(spec: ModelSpec, count: int, tokens: int) -> Row:
    """What the engine writes, and how fast once it is warm."""
    model = TransformersEngine(spec, count)
    texts = passages()
    prompts = [Prompt(str(n), f"{n}: {texts[n % len(texts)]}") for n in range(count)]
    sampling = Sampling(max_new_tokens=tokens, temperature=0.0, top_p=1.0)
    model.generate(prompts[:2], sampling, seed=0)
    started = time.perf_counter()
    answers = model.generate(prompts, sampling, seed=0)
    seconds = time.perf_counter() - started
    total = sum(answer.tokens for answer in answers)
    return {"tokens": total, "tokens/s": total / seconds}


def off_eager(setup: Setup) -> float:
    """The largest difference of a logit."""
    from transformers import AutoModelForCausalLM

    from reseed.models.loading import load_model

    spec = gemma(setup)
    ids = torch.arange(3, 67, device=setup.device)[None]
    reference = AutoModelForCausalLM.from_pretrained(spec.name, attn_implementation="eager", dtype=torch.bfloat16)
    with torch.inference_mode():
        own = load_model(Path(spec.name), spec).eval()(ids).logits.float()
        wanted = reference.to(setup.device).eval()(ids).logits.float()
    return float((own - wanted).abs().max())
