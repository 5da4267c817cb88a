"""The memory that training will take, per rank and ZeRO stage, from shapes alone: no weight is loaded or fetched.

The model is built without storage and one step is traced; what autograd keeps for the backward pass is counted. Each
column is its largest size, and the total is their sum, although they are not all at their largest at once. DeepSpeed's
buffers are those measured in version 0.19 (`bench/memory.py --zero`). What ZeRO-3 gathers is an
upper bound for a model larger than what it may hold at once (`LIVE`): what it fetches ahead depends on the order of the
layers. Not in the plan: the CUDA context, the allocator's fragments, what a kernel takes for itself while it runs, the
gradients' 32-bit copy of the optimiser's step, when the activations are gone, the buffer of a layer that arrives in a
smaller model, gradients that offloading sums up on the host, and what loading takes beside the weights: a 4-bit model
under ZeRO-3 is whole on every rank before it is sharded, and beside it are the 16-bit weights that are being quantised.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from reseed.models.cache import dense_folder
from reseed.models.configs import fetched_config
from reseed.models.loading import attention_of, hush
from reseed.models.names import ModelSpec, is_local, parse_wheel
from reseed.models.sizes import group_of
from reseed.records import ReseedError
from reseed.training.memory.activations import activation_bytes, shape_only_attention
from reseed.training.zero.settings import BUCKET, LIVE, persistence_threshold

BLOCK, SECOND_BLOCK = 64, 256  # weights that share a scale, scales that share a second one
QUANTISED = ("experts", "attention", "mlp")


@dataclass(frozen=True)
class Memory:
    """Bytes of one rank."""

    zero_stage: int  # 0: no DeepSpeed
    world: int
    weights: int
    adapters: int
    gradients: int
    optimizer: int
    activations: int
    gathered: int = 0  # under ZeRO-3: sharded weights that are whole on every rank at once
    host: int = 0  # offloaded to the machine's own memory
    loading: int = 0  # before training: a 4-bit model, which ZeRO-3 shards only once it is whole

    @property
    def total(self) -> int:
        """What the accelerator holds."""
        shared = self.weights + self.adapters + self.gradients + self.optimizer
        return shared + self.activations + self.gathered

    @property
    def peak(self) -> int:
        """The most that the accelerator holds at any time."""
        return max(self.total, self.loading)


@dataclass(frozen=True)
class Weight:
    """One parameter as it is stored. In 4 bit, one element of the model's dtype holds several weights."""

    layer: str  # that is gathered together; outside the layers, the weight's own name
    elements: int
    itemsize: int
    trained: bool
    scales: int  # bytes beside it, unknown to DeepSpeed
    linear: bool  # read by `torch.nn.functional.linear`

    @property
    def bytes(self) -> int:
        """Bytes of the whole parameter, without its scales."""
        return self.elements * self.itemsize


def plan_memory(
    spec: ModelSpec, settings: Any, rows: int, labels: int, worlds: dict[int, int], shape: Any = None
) -> list[Memory]:
    """One plan for each ZeRO stage of `worlds` (stage → ranks), for `rows` rows a rank of `settings.max_tokens` tokens.

    `labels` of each row's tokens have a label, and the output head runs on those alone. `shape` is the result of
    `shape_of`, if there is one already: building it takes longest.
    """
    import torch

    model, dtype = shape if shape is not None else shape_of(spec, settings), getattr(torch, spec.dtype)
    activations: dict[tuple[torch.dtype, bool], int] = {}
    plans: list[Memory] = []
    for stage, world in worlds.items():
        # PEFT makes an adapter in 32 bit and DeepSpeed casts it, but not where ZeRO-3 has sharded the model while it was
        # loaded: then the adapter stays in 32 bit, as without DeepSpeed. A 4-bit model is sharded later.
        key = (dtype if stage in (1, 2) or (stage == 3 and spec.four_bit) else torch.float32, stage == 3)
        cast_adapter(model, key[0])
        weights = stored_weights(model, spec)
        if key not in activations:
            # ZeRO-3's own linear keeps its input for the backward pass although the weight is frozen.
            inputs = {id(p) for p, w in zip(model.parameters(), weights, strict=True) if w.linear and stage == 3}
            tokens, checkpointing = settings.max_tokens, settings.gradient_checkpointing
            activations[key] = activation_bytes(model, rows, tokens, labels, checkpointing, inputs)
        if stage < 3:
            plan = unsharded_plan(weights, settings, dtype.itemsize, stage, world)
        else:
            plan = sharded_plan(weights, settings, dtype.itemsize, world, model.config.hidden_size)
            whole = sum(weight.bytes + weight.scales for weight in weights if not weight.trained)
            plan = replace(plan, loading=whole if spec.four_bit else 0)
        plan = replace(plan, activations=activations[key])
        plans.append(plan if stage == 0 or settings.offload == "none" else with_offload(plan, dtype.itemsize))
    return plans


def moment_bytes(settings: Any) -> int:
    """Bytes that the optimiser keeps for each trained weight."""
    return 2 if "8bit" in settings.optimizer else 8


def unsharded_plan(weights: Sequence[Weight], settings: Any, itemsize: int, stage: int, world: int) -> Memory:
    """The plan for stages 0 to 2, where every rank has all weights."""
    trained = sum(weight.elements for weight in weights if weight.trained)
    frozen = sum(weight.bytes + weight.scales for weight in weights if not weight.trained)
    if stage == 0:
        return Memory(0, world, frozen, 4 * trained, 4 * trained, moment_bytes(settings) * trained, 0)
    padded = -(-trained // (2 * world)) * 2 * world  # the flat adapter is cut into equal parts of an even length
    # Gradients are reduced in a bucket, which has its full size however few there are. Beside it stage 1 keeps them
    # whole, stage 2 the rank's part and in 32 bit, which is on the host where the optimiser is.
    beside = padded * itemsize if stage == 1 else padded // world * 4 if settings.offload == "none" else 0
    return Memory(
        zero_stage=stage,
        world=world,
        weights=frozen,
        adapters=padded * itemsize,
        gradients=BUCKET * itemsize + beside,
        optimizer=padded
        // world
        * (4 + moment_bytes(settings)),  # with a 32-bit copy of the weights, also of 32-bit ones
        activations=0,
    )


def sharded_plan(weights: Sequence[Weight], settings: Any, itemsize: int, world: int, width: int) -> Memory:
    """The plan for ZeRO-3: every rank has a shard of each weight, and small weights whole as well."""
    away = settings.offload == "parameters"
    parts, whole, sharded, trained = {True: 0, False: 0}, {True: 0, False: 0}, list[Weight](), 0
    for weight in weights:
        part = -(-weight.elements // world)
        trained += part if weight.trained else 0
        parts[weight.trained] += part * weight.itemsize
        whole[weight.trained] += weight.scales
        if world == 1 and not away:
            continue  # a single rank computes with its part, and gathers nothing
        if weight.elements <= persistence_threshold(width):
            whole[weight.trained] += weight.bytes
        else:
            sharded.append(weight)
    return Memory(
        zero_stage=3,
        world=world,
        weights=whole[False] + (0 if away else parts[False]),
        adapters=whole[True] + (0 if away else parts[True]),
        gradients=BUCKET * itemsize + (4 * trained if settings.offload == "none" else 0),
        optimizer=trained * (4 + moment_bytes(settings)),
        activations=0,
        gathered=gathered_bytes(sharded, itemsize, settings.gradient_checkpointing),
        host=sum(parts.values()) if away else 0,
    )


def with_offload(plan: Memory, itemsize: int) -> Memory:
    """The plan with the optimiser in host memory: its states, and the rank's part of the gradients twice, in 32 bit for the
    step and in the dtype it is passed on in (in stages 1 and 2, that of the new weights)."""
    share = plan.optimizer // 12  # elements; only a 32-bit optimiser is offloaded
    return replace(plan, optimizer=0, host=plan.host + plan.optimizer + share * (4 + itemsize))


def gathered_bytes(sharded: Sequence[Weight], itemsize: int, checkpointing: bool) -> int:
    """Bytes of the sharded weights that are whole on a rank at once.

    DeepSpeed does not release what is needed again within LIVE elements: a smaller model is whole on every rank at the
    end of the forward pass. Of a larger one, a layer that arrives is there twice, in the buffer and out of it. Nor does
    a release free what autograd holds: for everything but plain linear layers (fused experts, 4-bit weights) it saves
    the gathered weight itself, and the backward pass gathers it again.
    """
    if sum(weight.elements for weight in sharded) <= LIVE:
        return sum(weight.bytes for weight in sharded)
    layers, kept = dict[str, int](), dict[str, int]()
    for weight in sharded:
        layers[weight.layer] = layers.get(weight.layer, 0) + weight.bytes
        if weight.layer.isdigit() and not (weight.trained or weight.linear):
            kept[weight.layer] = kept.get(weight.layer, 0) + weight.bytes
    held = max(kept.values(), default=0) if checkpointing else sum(kept.values())
    return held + LIVE * itemsize + 2 * max(layers.values())


def stored_weights(model: Any, spec: ModelSpec) -> list[Weight]:
    """The model's parameters in order, as they are stored."""
    import torch

    dtype = getattr(torch, spec.dtype)
    fused = spec.four_bit is None and not spec.separate_experts  # when loaded; in its shape they are always separate
    found: list[Weight] = []
    for name, parameter in model.named_parameters():
        elements, scales, group = parameter.numel(), 0, group_of(name)
        trained = parameter.requires_grad
        packed = spec.four_bit is not None and not trained and group in QUANTISED and parameter.ndim == 2
        if packed:
            scales = scale_bytes(elements, spec.four_bit == "nf4-double")
            elements = -(-elements // (2 * dtype.itemsize))
        linear = parameter.ndim == 2 and not packed and not (group == "experts" and fused)
        number = re.search(r"\.layers\.(\d+)\.", name)
        layer = number[1] if number else name
        found.append(Weight(layer, elements, parameter.dtype.itemsize, trained, scales, linear))
    return found


def cast_adapter(model: Any, dtype: Any) -> None:
    """Cast the trained weights."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(dtype)


def scale_bytes(weights: int, double: bool) -> int:
    """Bytes of the scales beside NF4 weights."""
    blocks = -(-weights // BLOCK)
    return blocks + 4 * -(-blocks // SECOND_BLOCK) if double else 4 * blocks


def shape_of(spec: ModelSpec, settings: Any) -> Any:
    """Build the model with its adapter, without storage."""
    import torch
    from transformers import AutoModelForCausalLM

    from reseed.models.adapters import add_adapter

    hush()
    config = config_of(spec)
    make: Any = AutoModelForCausalLM.from_config
    if config.model_type == "mixtral":  # fused experts keep as much, but their kernel has no float32 shapes
        from reseed.models.experts import SeparateMixtral, separate_config

        config, make = separate_config(config), SeparateMixtral._from_config
    attention = shape_only_attention(eager=bool(attention_of(config)))
    with torch.device("meta"):
        model = make(config, attn_implementation=attention, dtype=getattr(torch, spec.dtype))
        return add_adapter(model, settings, seed=0)


def config_of(spec: ModelSpec) -> Any:
    """The model's configuration; for a hub model only `config.json` is fetched."""
    from transformers import AutoConfig

    own = is_local(spec.name) or parse_wheel(spec.name)
    place = dense_folder(spec.name) if own else fetched_config(spec.name).parent
    try:
        config = AutoConfig.from_pretrained(place, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise ReseedError(
            f"model '{spec.name}': its config.json cannot be read ({str(error).splitlines()[0]})"
        ) from error
    if spec.upcycle is None:
        return config
    from reseed.models.upcycle import mixtral_config

    return mixtral_config(config, spec.upcycle)
