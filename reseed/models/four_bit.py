"""Four bits a weight: NF4 in blocks of 64, by bitsandbytes (Dettmers et al., "QLoRA", 2023).

Router, output head, embeddings and norms stay in 16 bit.
"""

from __future__ import annotations

from typing import Any

from reseed.models.names import ModelSpec
from reseed.models.sizes import sizes
from reseed.records import ReseedError

MOST_BITS = 4.65  # a weight takes 4.5 bits: 4, and 32 for each block's scale; with double quantisation 4.13


def quantisation_options(spec: ModelSpec) -> dict[str, Any]:
    """Options of `from_pretrained` that quantise every Linear while it loads, tensor by tensor.

    The packed weights are stored in the model's own dtype: ZeRO-3 gathers parameters of one dtype only.
    """
    import torch
    from transformers import BitsAndBytesConfig

    dtype = getattr(torch, spec.dtype)
    settings = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=spec.four_bit == "nf4-double",
        bnb_4bit_compute_dtype=dtype,
        bnb_4bit_quant_storage=dtype,
    )
    return {"quantization_config": settings}


def check_four_bit(model: Any, name: str) -> None:
    """Refuse a model whose experts or Linear layers did not become 4-bit; and keep those that did trainable."""
    from bitsandbytes.nn.modules import Linear4bit

    for module in model.modules():
        if isinstance(module, Linear4bit):
            # On a CPU with AVX-512 bf16 the first evaluation would pack the weights for a kernel without a gradient.
            module.support_avx512bf16_for_cpu = False
    for group in sizes(model):
        if group.name in ("experts", "attention", "mlp") and group.bytes * 8 > MOST_BITS * group.parameters:
            bits = group.bytes * 8 / group.parameters
            raise ReseedError(
                f"model '{name}': its {group.name} take {bits:.1f} bits a weight, wanted {MOST_BITS} at most; "
                "4-bit training needs Linear layers, choose training.method lora for this model"
            )
