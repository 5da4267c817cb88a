"""The true Mixtral-8x7B shape with random weights: peak memory, tokens a second, and share of the card's matrix rate.

One row of random tokens a step, all of them labelled, LoRA on the attention, gradient checkpointing, AdamW. The floating
point operations are those that the model needs: 2 a weight and token forward, 2 backward (a frozen weight has no gradient
of its own), active experts only, attention added; what checkpointing computes twice is not counted. The rate that they
are compared with is that of a large bf16 matrix product, measured in the same run. The memory plan stands beside the peak.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Iterator
from typing import Any

import torch
from gpu.setup import MIXTRAL, Row, Setup, measured
from transformers import MixtralConfig

from reseed.models.adapters import add_adapter
from reseed.models.four_bit import check_four_bit, quantisation_options
from reseed.models.names import ModelSpec
from reseed.models.sizes import sizes, sizes_text
from reseed.settings import TrainingSettings
from reseed.training.loss import summed_loss
from reseed.training.memory.plan import plan_memory

STEPS = 5


def shape(setup: Setup) -> Iterator[Row]:
    """Rows of 1 024 to 4 096 tokens in NF4; a tiny model in 16 bit too, which a card has no room for."""
    config = MixtralConfig(**MIXTRAL["tiny" if setup.tiny else "mixtral-8x7b"])
    lengths = [32, 64] if setup.tiny else [1024, 2048, 4096]
    yield from measure(setup, config, ModelSpec(name="random", four_bit="nf4-double"), lengths)
    if setup.tiny:
        yield from measure(setup, config, ModelSpec(name="random"), lengths[:1])


def measure(setup: Setup, config: MixtralConfig, spec: ModelSpec, lengths: list[int]) -> Iterator[Row]:
    """One row a length."""
    device = setup.device
    rate = matrix_rate(device, 256 if setup.tiny else 8192)
    settings = TrainingSettings(rank=8, max_tokens=max(lengths), gradient_checkpointing=True)
    model = add_adapter(random_model(config, spec, device), settings, seed=0).train()
    model.enable_input_require_grads()
    model.gradient_checkpointing_enable({"use_reentrant": False})
    print(sizes_text(sizes(model)), flush=True)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4)
    for tokens in lengths:
        ids = torch.randint(0, config.vocab_size, (1, tokens), device=device)

        def step(ids: torch.Tensor = ids) -> None:
            loss, count = summed_loss(model, {"input_ids": ids, "labels": ids})
            (loss / count).backward()
            optimizer.step()
            optimizer.zero_grad()

        step()
        runs = [measured(step, device) for _ in range(2 if setup.tiny else STEPS)]
        seconds = statistics.median(seconds for seconds, _ in runs)
        peaks = [peak for _, peak in runs if peak is not None]
        yield {
            "what": f"{spec.four_bit or 'bf16'}, {tokens} tokens",
            "tokens/s": tokens / seconds,
            "of the matrix rate": operations(config, tokens) / seconds / rate,
            "matrix rate, TFLOP/s": rate / 1e12,
            "peak GiB": max(peaks) / 2**30 if peaks else None,
            "planned GiB": planned(config, spec, settings, tokens) / 2**30,
        }


def random_model(config: MixtralConfig, spec: ModelSpec, device: torch.device) -> Any:
    """The shape with random weights: each made on the device and, in 4 bit, packed before the next one is made."""
    from accelerate import init_empty_weights
    from transformers import MixtralForCausalLM

    from reseed.models.experts import SeparateMixtral, separate_config

    with init_empty_weights():
        if spec.four_bit:
            model: Any = SeparateMixtral._from_config(separate_config(config), dtype=torch.bfloat16)
        else:
            model = MixtralForCausalLM._from_config(config, dtype=torch.bfloat16)
            model.set_experts_implementation("grouped_mm")
    if spec.four_bit:
        from transformers.integrations import replace_with_bnb_linear

        settings = quantisation_options(spec)["quantization_config"]
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
    return 2 * size**3 / statistics.median(measured(lambda: one @ other, device)[0] for _ in range(12))


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


def planned(config: MixtralConfig, spec: ModelSpec, settings: TrainingSettings, tokens: int) -> int:
    """What `reseed plan --memory` says of it, without DeepSpeed and with every token labelled."""
    with tempfile.TemporaryDirectory() as folder:
        config.save_pretrained(folder)
        here = spec.model_copy(update={"name": folder})
        return plan_memory(here, settings.model_copy(update={"max_tokens": tokens}), 1, tokens, {0: 1})[0].total
