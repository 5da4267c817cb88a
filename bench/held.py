"""What a real step holds, counted storage by storage: of one process without DeepSpeed, and of a rank of a running one.

The counts are `Memory` records, so that they stand beside the plan's column by column.
"""

from __future__ import annotations

import json
import os
import socket
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch.multiprocessing.reductions import StorageWeakRef

from reseed.language.tokens import IGNORED, Encoded, Example
from reseed.models.adapters import add_adapter
from reseed.models.cache import materialise
from reseed.models.loading import load_model
from reseed.models.names import ModelSpec
from reseed.models.sizes import sizes
from reseed.settings import TrainingSettings
from reseed.training.memory.plan import Memory
from tasks.training_worker import build_no_helpers

STEPS = 3  # ZeRO-3 records the order of the layers in the first one, and fetches ahead from the second on


@contextmanager
def kept_for_backward(model: Any) -> Iterator[dict[int, torch.UntypedStorage]]:
    """The storages, parameters apart, that autograd keeps of what runs in the block."""
    kept: dict[int, torch.UntypedStorage] = {}

    def parameters() -> set[int]:
        return {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}

    sharded, own = any(hasattr(parameter, "ds_id") for parameter in model.parameters()), parameters()

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in (parameters() if sharded else own):  # ZeRO-3 gives them another one each time
            kept[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        yield kept


def loss_and_activations(model: Any, rows: int, tokens: int, labels: int) -> tuple[torch.Tensor, int]:
    """The loss of random rows, and the bytes that autograd keeps of it."""
    ids = torch.randint(0, model.config.vocab_size, (rows, tokens), generator=torch.Generator().manual_seed(0))
    with kept_for_backward(model) as kept:
        embedded = model.get_input_embeddings()(ids).requires_grad_(True)
        logits = model(inputs_embeds=embedded, logits_to_keep=labels, use_cache=False).logits
        loss = torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), ids[:, -labels:].flatten())
    return loss, sum(storage.nbytes() for storage in kept.values())


def held_alone(spec: ModelSpec, settings: TrainingSettings, rows: int, labels: int) -> Memory:
    """One step of one process without DeepSpeed."""
    model = add_adapter(load_model(materialise(spec), spec), settings, seed=0).train()
    measured = {group.name: group.bytes for group in sizes(model)}
    loss, activations = loss_and_activations(model, rows, settings.max_tokens, labels)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained)
    loss.backward()
    optimizer.step()
    states = [tensor for state in optimizer.state.values() for tensor in state.values() if tensor.ndim > 0]
    return Memory(
        zero_stage=0,
        world=1,
        weights=sum(size for name, size in measured.items() if name != "adapter"),
        adapters=measured["adapter"],
        gradients=sum(parameter.grad.nbytes for parameter in trained if parameter.grad is not None),
        optimizer=sum(tensor.nbytes for tensor in states),
        activations=activations,
    )


Run = tuple[ModelSpec, TrainingSettings]


def held_by_ranks(runs: Sequence[Run], rows: int, labels: int, world: int = 2) -> list[Memory]:
    """Three steps of `world` processes for each run, in their order; the counts are those of rank 0."""
    with tempfile.TemporaryDirectory() as place:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        torch.multiprocessing.spawn(rank_main, (world, port, runs, rows, labels, place), nprocs=world)
        return [Memory(**one) for one in json.loads((Path(place) / "held.json").read_text())]


def rank_main(rank: int, world: int, port: int, runs: Sequence[Run], rows: int, labels: int, place: str) -> None:
    """One rank: trains as `reseed.training.loop` does, three steps, and looks into DeepSpeed meanwhile."""
    address = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "DS_ACCELERATOR": "cpu",
        "CUDA_VISIBLE_DEVICES": "",
    }
    ranks = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world}
    os.environ.update(address, **{name: str(number) for name, number in ranks.items()})
    torch.set_num_threads(1)
    build_no_helpers()
    linear, found = torch.nn.functional.linear, []
    for spec, settings in runs:
        found.append(held_by_rank(spec, settings, rows, labels, world, Path(place)))
        torch.nn.functional.linear = linear  # ZeRO-3 leaves its own behind
    if rank == 0:
        (Path(place) / "held.json").write_text(json.dumps([asdict(one) for one in found]))
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def held_by_rank(
    spec: ModelSpec, settings: TrainingSettings, rows: int, labels: int, world: int, place: Path
) -> Memory:
    """Every column's largest size in the last of three steps."""
    from reseed.training.arguments import training_arguments
    from reseed.training.job import Silent, TrainJob
    from reseed.training.trainer import KeepBest, build_trainer
    from reseed.training.zero.settings import join_ranks

    folder, job = materialise(spec), TrainJob(spec, settings, 0, world, rows)
    count = STEPS * rows * world
    arguments = training_arguments(job, count, place)
    arguments.max_steps, arguments.eval_strategy, arguments.save_strategy = STEPS, "no", "no"
    join_ranks()
    model = add_adapter(load_model(folder, spec), settings, seed=0)
    if settings.gradient_checkpointing:
        model.enable_input_require_grads()
    examples = random_examples(count, settings.max_tokens, labels, model.config.vocab_size)
    part = Encoded(examples, 0, 0, [str(number) for number in range(count)])
    trainer: Any = build_trainer(model, arguments, part, examples[:1], 0, job, Silent())
    trainer.remove_callback(KeepBest)
    look = Look(trainer, settings, world)
    with look.at_gathered_weights():
        trainer.train()
    return look.memory()


def random_examples(count: int, tokens: int, labels: int, vocabulary: int) -> list[Example]:
    """Rows of equal length, the last `labels` tokens of which have a label."""
    rows = torch.randint(0, vocabulary, (count, tokens), generator=torch.Generator().manual_seed(0)).tolist()
    return [Example(tuple(ids), (IGNORED,) * (tokens - labels) + tuple(ids[-labels:])) for ids in rows]


class Look:
    """Watches one rank's trainer and remembers the largest size of each column."""

    def __init__(self, trainer: Any, settings: TrainingSettings, world: int) -> None:
        self.trainer, self.settings, self.world = trainer, settings, world
        self.parameters = list(trainer.model.parameters())
        self.trained = [parameter for parameter in self.parameters if parameter.requires_grad]
        self.largest: dict[str, int] = {}
        self.gathered: dict[int, tuple[StorageWeakRef, int]] = {}
        self.calls, self.loss = 0, trainer.compute_loss
        trainer.compute_loss = self.compute_loss

    def compute_loss(self, model: Any, *args: Any, **options: Any) -> Any:
        """What autograd keeps is counted in the second step: the hooks alone keep gathered weights alive."""
        self.calls += 1
        if self.calls == 1:
            for parameter in self.trained:
                parameter.register_post_accumulate_grad_hook(lambda _: self.see())
            step, model.step = model.step, lambda *a, **o: (self.see(), step(*a, **o))[1]
        if self.calls != STEPS - 1:
            return self.loss(model, *args, **options)
        with kept_for_backward(model) as kept:
            loss = self.loss(model, *args, **options)
        self.largest["activations"] = sum(storage.nbytes() for storage in kept.values())
        return loss

    def see(self) -> None:
        """Look at every buffer of the engine."""
        if self.calls < STEPS:
            return
        seen: set[int] = set()
        for name, tensors in columns(
            self.trainer.model_wrapped.optimizer, self.parameters, self.settings.offload
        ).items():
            size = 0
            for storage in (tensor.untyped_storage() for tensor in tensors):
                size += storage.nbytes() if storage.data_ptr() not in seen else 0
                seen.add(storage.data_ptr())
            self.largest[name] = max(size, self.largest.get(name, 0))

    @contextmanager
    def at_gathered_weights(self) -> Iterator[None]:
        """See every weight that ZeRO-3 gathers, and the buffer that it comes in, for as long as anything holds it."""
        from deepspeed.runtime.zero.partition_parameters import AllGatherCoalescedHandle, AllGatherHandle

        kinds = (AllGatherCoalescedHandle, AllGatherHandle)
        plain = {(kind, name): getattr(kind, name) for kind in kinds for name in ("__init__", "wait")}

        def watched(method: Any) -> Any:
            def call(handle: Any, *args: Any, **options: Any) -> None:
                method(handle, *args, **options)
                self.gather(gathered_by(handle))

            return call

        for (kind, name), method in plain.items():
            setattr(kind, name, watched(method))
        try:
            yield
        finally:
            for (kind, name), method in plain.items():
                setattr(kind, name, method)

    def gather(self, tensors: Iterable[torch.Tensor]) -> None:
        """Remember gathered weights without holding them, and forget those that are gone."""
        for storage in (tensor.untyped_storage() for tensor in tensors):
            reference = StorageWeakRef(storage)
            self.gathered[reference.cdata] = (reference, storage.nbytes())
        self.gathered = {key: one for key, one in self.gathered.items() if not one[0].expired()}
        if self.calls >= STEPS:
            held = sum(size for _, size in self.gathered.values())
            self.largest["gathered"] = max(held, self.largest.get("gathered", 0))

    def memory(self) -> Memory:
        """The columns of the plan."""
        return Memory(self.settings.zero_stage, self.world, **{"optimizer": 0, **self.largest})


ON_HOST = (
    "param_buffer_of_bit16_for_cpu_offload_groups",
    "accumulated_grads_in_cpu",
    "temp_grad_buffer_for_cpu_offload",
)
GRADIENTS = ("averaged_gradients", "grads_in_partition", "temp_grad_buffer_for_gpu_offload")


def columns(zero: Any, parameters: list[Any], offload: str) -> dict[str, list[torch.Tensor]]:
    """The tensors of each column, out of DeepSpeed's own buffers of either stage. Where everything is a CPU's, what is
    offloaded is known by its place in the engine."""
    found: dict[str, list[torch.Tensor]] = {
        name: [] for name in ("host", "weights", "adapters", "optimizer", "gradients")
    }
    for parameter in parameters:
        parts, whole = parts_of(parameter)
        column = "adapters" if parameter.requires_grad else "weights"
        found["host" if offload == "parameters" else column] += parts
        found[column] += whole
    found["adapters"] += attributes(zero, "bit16_groups_flat", "lp_param_buffer")
    masters = [one for group in zero.optimizer.param_groups for one in tensors_in(group["params"])]
    masters += attributes(zero, "fp32_partitioned_groups_flat")  # ZeRO-3 lends them to the optimiser for a step
    found["optimizer"] += tensors_in([masters, *map(dict, zero.optimizer.state.values())])
    found["gradients"] += attributes(zero, *GRADIENTS)
    found["gradients"] += tensors_in([[p.grad, getattr(p, "grad_accum", None)] for p in parameters])
    found["gradients"] += tensors_in([bucket.buffer for bucket in zero.ipg_buckets.values()])
    flat = attributes(zero, "grad_partitions_flat_buffer")
    found["gradients" if offload == "none" else "host"] += flat
    if offload != "none":
        found["host"] += [
            *found.pop("optimizer"),
            *tensors_in([one.grad for one in masters]),
            *attributes(zero, *ON_HOST),
        ]
    return found


def attributes(zero: Any, *names: str) -> list[torch.Tensor]:
    """The tensors in those of the attributes that this stage has."""
    return [tensor for name in names for tensor in tensors_in(getattr(zero, name, None))]


def parts_of(parameter: Any) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """A parameter's part that ZeRO-3 gives the rank, and what is whole: under ZeRO-3 what is too small to shard, and
    the scales of 4-bit weights, of which it does not know."""
    state = getattr(parameter, "quant_state", None)
    scales = [state.absmax, *([state.state2.absmax] if state.nested else [])] if state is not None else []
    if not hasattr(parameter, "ds_id"):
        return [], [parameter.data, *scales]
    return [parameter.ds_tensor], [*scales, *([parameter.data] if parameter.ds_persist else [])]


def gathered_by(handle: Any) -> list[torch.Tensor]:
    """The buffer that a gathering of DeepSpeed fills, while it is there, and the weights made of it."""
    one = getattr(handle, "_AllGatherHandle__param", None)
    weights = [one] if one is not None else handle.params
    return [*getattr(handle, "partitions", []), *(weight.data for weight in weights if not weight.ds_persist)]


def tensors_in(value: Any) -> Iterator[torch.Tensor]:
    """The tensors in nested lists and dicts."""
    if isinstance(value, torch.Tensor):
        yield value
        flat = getattr(value, "flat_partition", None)
        yield from tensors_in(flat)
    elif isinstance(value, dict | list | tuple):
        for one in value.values() if isinstance(value, dict) else value:
            yield from tensors_in(one)
