"""What DeepSpeed makes of numbers on two ranks: buffers stay as precise as they are, gradients are summed in 32 bit, and
every rank drops what its own dice say."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import transformers
from test_training_deepspeed import HERE, environment, finish, free_port, start

pytestmark = pytest.mark.slow
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "Mixtral": ("Mixtral", {"num_local_experts": 2, "rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}),
    "Gemma2": ("Gemma2", {"query_pre_attn_scalar": 8}),
    "Gemma3": ("Gemma3Text", {"layer_types": ["sliding_attention", "full_attention"]}),
}
STAGES = ((2, "none"), (2, "optimizer"), (3, "none"), (3, "parameters"))


def save_family(folder: Path, family: str) -> str:
    prefix, own = FAMILIES[family]
    config = getattr(transformers, f"{prefix}Config")(
        vocab_size=300, hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, head_dim=64, max_position_embeddings=4096, **own,
    )  # fmt: skip
    getattr(transformers, f"{family}ForCausalLM")(config).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def found(tiny_model: Path, shared_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each rank saw; one start for all tests here."""
    place = tmp_path_factory.mktemp("numbers")
    families = {name: save_family(place / name, name) for name in FAMILIES}
    spec = {"out": str(place), "model": str(tiny_model), "families": families, "stages": STAGES}
    (place / "spec.json").write_text(json.dumps(spec))
    command = [sys.executable, "-m", "torch.distributed.run", "--nnodes=1", "--nproc-per-node=2"]
    command += ["--master-addr=127.0.0.1", f"--master-port={free_port()}", f"--log-dir={place}"]
    finish([start([*command, str(HERE / "numbers_worker.py"), str(place / "spec.json")], environment(shared_cache))])
    return [json.loads((place / f"rank-{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.parametrize("family", FAMILIES)
def test_zero_3_rounds_no_buffer(found: list[dict[str, Any]], family: str) -> None:
    """Rounded rotary frequencies put token 4 096 of a Mixtral 5.7 radians beside its place."""
    for rank in found:
        buffers = rank["buffers"][family]
        assert sum("inv_freq" in name for name in buffers) == (4 if family == "Gemma3" else 2)
        assert {name: seen for name, seen in buffers.items() if seen[0] != seen[1] or seen[2] != 0} == {}


@pytest.mark.parametrize(("stage", "offload"), STAGES)
def test_micro_steps_are_summed_in_32_bit(found: list[dict[str, Any]], stage: int, offload: str) -> None:
    """In bfloat16 the error was 0.005; what is left comes of averaging the ranks, which is done in bfloat16."""
    assert found[0]["summed"][f"{stage} {offload}"] < 1e-3


def test_every_rank_has_dropout_masks_of_its_own(found: list[dict[str, Any]]) -> None:
    one, other = (rank["masks"] for rank in found)
    assert len(one) == len(other) > 0
    assert not set(one) & set(other)


def test_a_resumed_rank_goes_on_with_its_own_masks(found: list[dict[str, Any]]) -> None:
    for rank in found:
        assert 0 < len(rank["resumed"]) < len(rank["masks"])
        assert rank["resumed"] == rank["masks"][-len(rank["resumed"]) :]
