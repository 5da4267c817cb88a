"""Tokens per second, share of the card's matrix rate and peak memory of LoRA and QLoRA, on true shapes with random weights.

    .venv/bin/python bench/gpu_training.py --shape mixtral-8x7b --method qlora --tokens 1024 2048 4096 [--out FILE]
    .venv/bin/python bench/gpu_training.py --shape tiny --method qlora --tokens 64      # on a CPU: the script itself

One row of random tokens a step, all of them labelled, LoRA on the attention, gradient checkpointing, AdamW. The floating
point operations are those that the model needs: 2 a weight and token forward, 2 backward (a frozen weight has no gradient
of its own), active experts only, attention added; what checkpointing computes twice is not counted. The rate that they
are compared with is that of a large bf16 matrix product, measured in the same run. The memory plan stands beside the peak.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import MixtralConfig

from reseed.models.four_bit import check_four_bit, quantised
from reseed.models.names import ModelSpec
from reseed.models.sizes import described, sizes
from reseed.recipe import TrainingSettings
from reseed.training.adapters import add_adapter
from reseed.training.loss import summed_loss
from reseed.training.memory_plan import plan_memory

SHAPES: dict[str, dict[str, int]] = {
    "mixtral-8x7b": {},  # transformers' default
    "mixtral-2-layers": {"num_hidden_layers": 2},
    "mixtral-373m": {
        "vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
        "num_attention_heads": 9, "num_key_value_heads": 3, "num_local_experts": 4,
    },
    "tiny": {
        "vocab_size": 300, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "num_local_experts": 4,
    },
}  # fmt: skip
TARGETS = {"attention": ("q_proj", "k_proj", "v_proj", "o_proj"), "experts": ("gate_proj", "up_proj", "down_proj")}


def random_model(config: MixtralConfig, spec: ModelSpec, device: torch.device) -> Any:
    """The shape with random weights: each made on the device and, in 4 bit, packed before the next one is made."""
    from accelerate import init_empty_weights
    from transformers import MixtralForCausalLM

    from reseed.models.experts import SeparateMixtral, separate_config

    with init_empty_weights():
        if spec.four_bit or spec.separate_experts:
            model: Any = SeparateMixtral(separate_config(config))
        else:
            model = MixtralForCausalLM(config)
            model.set_experts_implementation("grouped_mm")
        model = model.to(torch.bfloat16)
    if spec.four_bit:
        from transformers.integrations import replace_with_bnb_linear

        settings = quantised(spec)["quantization_config"]
        model = replace_with_bnb_linear(model, modules_to_not_convert=["lm_head"], quantization_config=settings)
        model.is_loaded_in_4bit = True
    for module in list(model.modules()):
        for name, parameter in list(module.named_parameters(recurse=False)):
            shape = (module.out_features, module.in_features) if hasattr(parameter, "quant_state") else parameter.shape
            weight = torch.randn(shape, device=device, dtype=torch.bfloat16) * 0.02
            if hasattr(parameter, "quant_state"):
                packed = type(parameter)(weight, requires_grad=False, **parameter.__dict__)
                setattr(module, name, packed.to(device))
            else:
                setattr(module, name, torch.nn.Parameter(weight))
    model = model.to(device)
    if spec.four_bit:
        check_four_bit(model, "random")
    return model


def matrix_rate(device: torch.device, size: int) -> float:
    """Floating point operations a second of a square bf16 matrix product."""
    one, other = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    return 2 * size**3 / statistics.median(timed(lambda: one @ other, device) for _ in range(12))


def timed(work: Callable[[], object], device: torch.device) -> float:
    """Seconds until the device has done it."""
    started = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def operations(config: MixtralConfig, tokens: int) -> float:
    """Of one row: forward, and backward to the activations."""
    heads = config.num_attention_heads * (
        getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    )
    keys = heads * config.num_key_value_heads // config.num_attention_heads
    attention = config.hidden_size * (2 * heads + 2 * keys)
    experts = 3 * config.hidden_size * config.intermediate_size * config.num_experts_per_tok
    weights = config.num_hidden_layers * (attention + experts) + config.vocab_size * config.hidden_size
    causal = config.num_hidden_layers * tokens * heads  # QK and PV over half of the square; backward is twice forward
    return 4.0 * tokens * (weights + 1.5 * causal)


def measure(
    config: MixtralConfig, spec: ModelSpec, targets: tuple[str, ...], lengths: list[int], steps: int
) -> list[dict[str, Any]]:
    """One result a length."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rate = matrix_rate(device, 8192 if device.type == "cuda" else 2048)
    settings = TrainingSettings(targets=targets, rank=8, max_tokens=max(lengths), gradient_checkpointing=True)
    model = add_adapter(random_model(config, spec, device), settings, seed=0).train()
    model.enable_input_require_grads()
    model.gradient_checkpointing_enable({"use_reentrant": False})
    print(described(sizes(model)), flush=True)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4)
    found = []
    for tokens in lengths:
        ids = torch.randint(0, config.vocab_size, (1, tokens), device=device)
        batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids}

        def step(batch: dict[str, torch.Tensor] = batch) -> None:
            loss, count = summed_loss(model, batch)
            (loss / count).backward()
            optimizer.step()
            optimizer.zero_grad()

        step()
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        seconds = statistics.median(timed(step, device) for _ in range(steps))
        found.append(
            {
                "tokens": tokens,
                "tokens_per_second": tokens / seconds,
                "share_of_matrix_rate": operations(config, tokens) / seconds / rate,
                "matrix_rate": rate,
                "peak_bytes": torch.cuda.max_memory_allocated() if device.type == "cuda" else None,
                "planned_bytes": planned(config, spec, settings, tokens),
            }
        )
        print(json.dumps(found[-1]), flush=True)
    return found


def planned(config: MixtralConfig, spec: ModelSpec, settings: TrainingSettings, tokens: int) -> int:
    """What `reseed plan --memory` says of it, without DeepSpeed and with every token labelled."""
    with tempfile.TemporaryDirectory() as folder:
        config.save_pretrained(folder)
        here = spec.model_copy(update={"name": folder})
        return plan_memory(here, settings.model_copy(update={"max_tokens": tokens}), 1, tokens, {0: 1})[0].total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="mixtral-8x7b")
    parser.add_argument("--method", choices=["lora", "qlora"], default="qlora")
    parser.add_argument("--targets", choices=TARGETS, default="attention")
    parser.add_argument("--tokens", type=int, nargs="+", default=[1024, 2048, 4096])
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    spec = ModelSpec(
        name="random",
        four_bit="nf4-double" if options.method == "qlora" else None,
        separate_experts=options.targets == "experts",
    )
    found = measure(
        MixtralConfig(**SHAPES[options.shape]), spec, TARGETS[options.targets], options.tokens, options.steps
    )
    if options.out:
        options.out.write_text(json.dumps({**vars(options), "out": None, "results": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
