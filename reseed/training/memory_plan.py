"""What training will take, per rank and for each ZeRO stage, from shapes alone: no weight is loaded or fetched.

The model is built without storage and one step is traced; what autograd keeps for the backward pass is counted as it is
kept. Not in the plan: the CUDA context, the allocator's fragments, what a kernel takes for itself while it runs, and
that a 4-bit model under ZeRO-3 is loaded whole before it is divided.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from reseed.models.cache import dense_folder
from reseed.models.names import ModelSpec, is_local, parse_wheel
from reseed.models.sizes import group_of
from reseed.records import ReseedError

BLOCK, SECOND_BLOCK = 64, 256  # weights that share a scale, scales that share a second one
QUANTISED = ("experts", "attention", "mlp")


@dataclass(frozen=True)
class Memory:
    """Bytes of one rank."""

    zero_stage: int  # 0: without DeepSpeed
    world: int
    weights: int
    adapters: int
    gradients: int
    optimizer: int
    activations: int
    gathered: int = 0  # under ZeRO-3: the layer that is computing, whole on every rank
    host: int = 0  # offloaded: in the machine's own memory, not in the accelerator's

    @property
    def total(self) -> int:
        """What the accelerator holds."""
        shared = self.weights + self.adapters + self.gradients + self.optimizer
        return shared + self.activations + self.gathered


def plan_memory(spec: ModelSpec, settings: Any, rows: int, labels: int, worlds: dict[int, int]) -> list[Memory]:
    """One plan for each ZeRO stage of `worlds` (stage → ranks), for `rows` rows a rank of `settings.max_tokens` tokens.

    `labels` of each row's tokens have a label: the output head runs on them alone.
    """
    import torch

    model = shape_of(spec, settings)
    activations = activation_bytes(model, rows, settings.max_tokens, labels, settings.gradient_checkpointing)
    frozen = scales = trained = 0
    layers: dict[str, int] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            trained += parameter.numel()
            continue
        size = parameter.numel() * getattr(torch, spec.dtype).itemsize
        if spec.four_bit and group_of(name) in QUANTISED and parameter.ndim == 2:
            size = parameter.numel() // 2
            scales += scale_bytes(parameter.numel(), spec.four_bit == "nf4-double")
        frozen += size
        layer = name.partition(".layers.")[2].partition(".")[0]  # empty outside of the layers
        layers[layer] = layers.get(layer, 0) + size
    moments = 2 if "8bit" in settings.optimizer else 8
    plans: list[Memory] = []
    for stage, world in worlds.items():
        # DeepSpeed trains an adapter of the model's dtype with a 32-bit copy in the optimiser; without it, in 32 bit.
        trained_bytes = trained * (2 if stage > 0 and spec.dtype != "float32" else 4)
        master = 4 if stage > 0 else 0
        plan = Memory(
            zero_stage=stage,
            world=world,
            weights=frozen // (world if stage == 3 else 1) + scales,  # DeepSpeed does not know of the scales
            adapters=trained_bytes // (world if stage == 3 else 1),
            gradients=trained_bytes // (world if stage >= 2 else 1),
            optimizer=trained * (moments + master) // (world if stage >= 1 else 1),
            activations=activations,
            gathered=max(size for layer, size in layers.items() if layer) if stage == 3 else 0,
        )
        plans.append(offloaded(plan, scales, settings.offload) if stage > 0 else plan)
    return plans


def offloaded(plan: Memory, scales: int, what: str) -> Memory:
    """The plan with the optimiser's states, and under ZeRO-3 the parameters, in the machine's own memory."""
    if what == "none":
        return plan
    moved = replace(plan, optimizer=0, host=plan.optimizer)
    if what == "parameters" and plan.zero_stage == 3:
        host = moved.host + plan.weights - scales + plan.adapters
        return replace(moved, weights=scales, adapters=0, host=host)
    return moved


def scale_bytes(weights: int, double: bool) -> int:
    """Bytes of the scales of NF4 weights."""
    blocks = -(-weights // BLOCK)
    return blocks + 4 * -(-blocks // SECOND_BLOCK) if double else 4 * blocks


def shape_of(spec: ModelSpec, settings: Any) -> Any:
    """The model with its adapter, without storage."""
    import torch
    from transformers import AutoModelForCausalLM

    from reseed.training.adapters import add_adapter

    config = config_of(spec)
    make: Any = AutoModelForCausalLM.from_config
    if config.model_type == "mixtral":  # fused experts keep as much, but their kernel has no float32 shapes
        from reseed.models.experts import SeparateMixtral, separate_config

        config, make = separate_config(config), SeparateMixtral._from_config
    with torch.device("meta"):
        model = make(config, attn_implementation=shape_only_attention(), dtype=getattr(torch, spec.dtype))
        return add_adapter(model, settings, seed=0)


def config_of(spec: ModelSpec) -> Any:
    """The model's configuration; of a hub model only `config.json` is fetched."""
    from transformers import AutoConfig

    place = dense_folder(spec.name) if is_local(spec.name) or parse_wheel(spec.name) else spec.name
    try:
        config = AutoConfig.from_pretrained(place)
    except (OSError, ValueError) as error:
        raise ReseedError(
            f"model '{spec.name}': its config.json cannot be read ({str(error).splitlines()[0]})"
        ) from error
    if spec.upcycle is None:
        return config
    from reseed.models.upcycle import mixtral_config

    return mixtral_config(config, spec.upcycle)


def shape_only_attention() -> str:
    """Register an attention that keeps what a flash kernel keeps; PyTorch's own would keep every probability on meta."""
    import torch
    from transformers import AttentionInterface

    class Keep(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, query: Any, key: Any, value: Any) -> Any:
            out = torch.empty_like(query)
            sums = query.new_empty(query.shape[:-1], dtype=torch.float32)
            ctx.save_for_backward(query, key, value, out, sums)
            return out

    def attention(module: Any, query: Any, key: Any, value: Any, mask: Any, **options: Any) -> tuple[Any, None]:
        out = Keep.apply(query, key, value)  # type: ignore[no-untyped-call]
        return out.transpose(1, 2).contiguous(), None

    AttentionInterface.register("shape-only", attention)
    return "shape-only"


def activation_bytes(model: Any, rows: int, tokens: int, labels: int, checkpointing: bool) -> int:
    """What autograd keeps of one forward pass; with gradient checkpointing, of every layer its input and of one all."""
    everything = traced(model, rows, tokens, labels)
    if not checkpointing:
        return everything
    layers = int(model.config.num_hidden_layers)
    head = traced(model, rows, tokens, labels, layers=0)
    inputs = rows * tokens * int(model.config.hidden_size) * int(model.dtype.itemsize) * layers
    return head + inputs + (everything - head) // layers


def traced(model: Any, rows: int, tokens: int, labels: int, layers: int | None = None) -> int:
    """Bytes of the storages, parameters apart, that a forward pass and its loss keep for the backward pass."""
    import torch

    own = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage  # held, so that no later storage gets its address
        return tensor

    core = model.get_base_model().model
    whole = core.layers
    core.layers = whole[: len(whole) if layers is None else layers]
    try:
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            ids = torch.zeros(rows, tokens, dtype=torch.long, device="meta")
            embedded = model.get_input_embeddings()(ids).requires_grad_(True)
            logits = model(inputs_embeds=embedded, logits_to_keep=labels, use_cache=False).logits
            targets = torch.zeros(rows * labels, dtype=torch.long, device="meta")
            torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), targets, reduction="sum")
    finally:
        core.layers = whole
    return sum(storage.nbytes() for storage in kept.values())
