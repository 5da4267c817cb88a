"""DeepSpeed on CPU ranks: every ZeRO stage has the curve of one process without it, and the same bits after a stop."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from tiny import save_embedder
from tiny_rows import CURVE, PROBLEM, TWENTY, job, rows

from reseed.models.adapters import verify_adapter
from reseed.models.cache import materialise
from reseed.models.loading import load_model
from reseed.models.names import ModelSpec
from reseed.models.tokenizers import load_tokenizer
from reseed.training.checkpoints import damage_of
from reseed.training.job import Silent
from reseed.training.loop import train

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[2]
WORKER = str(HERE / "ddp_worker.py")
ADAPTER = Path("adapter_model.safetensors")
FOUR_BIT = {"four_bit": "nf4"}
EXPERTS = ("q_proj", "gate_proj", "up_proj", "down_proj")
ENDED = {"learning_rate": 3.0, "evaluate_every": 1, "patience": 1}
METRIC = {"choose_by": "metric", "metric_rows": 5, "gradient_checkpointing": True}
LIMIT = 300  # seconds; a hang is a failure

pytestmark = pytest.mark.slow


def environment(cache: Path) -> dict[str, str]:
    paths = [str(path) for path in (REPOSITORY, REPOSITORY / "tests", HERE)]
    return os.environ | {
        "PYTHONPATH": os.pathsep.join(paths),
        "RESEED_CACHE": str(cache),
        "DS_ACCELERATOR": "cpu",
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def write_spec(place: Path, model: Path, runs: list[dict[str, Any]]) -> str:
    (place / "spec.json").write_text(json.dumps({"model": str(model), "runs": runs}))
    return str(place / "spec.json")


def finish(processes: list[subprocess.Popen[str]]) -> None:
    """Wait for all ranks; at the limit, or when one fails, end them all."""
    try:
        outputs = [process.communicate(timeout=LIMIT)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    for process, output in zip(processes, outputs, strict=True):
        assert process.returncode == 0, output[-6000:]


def start(command: list[str], variables: dict[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command, env=variables, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def torchrun(place: Path, cache: Path, model: Path, runs: list[dict[str, Any]]) -> None:
    """Two ranks on one node, which share the work folder."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nnodes=1", "--nproc-per-node=2"]
    command += ["--master-addr=127.0.0.1", f"--master-port={free_port()}", f"--log-dir={place}", WORKER]  # or into /tmp
    command.append(write_spec(place, model, runs))
    finish([start(command, environment(cache))])


def nodes(place: Path, cache: Path, model: Path, count: int, runs: list[dict[str, Any]]) -> None:
    """One rank a node: each has a work folder of its own."""
    spec, port = write_spec(place, model, runs), str(free_port())
    ranks = []
    for rank in range(count):
        variables = {"RANK": str(rank), "LOCAL_RANK": "0", "WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": "1"}
        variables |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        ranks.append(start([sys.executable, WORKER, spec], environment(cache) | variables))
    finish(ranks)


def result(out: Path) -> dict[str, Any]:
    return dict(json.loads((out / "result.json").read_text()))


def last_adapter(out: Path) -> bytes:
    steps = sorted((out / "seen").iterdir(), key=lambda path: int(path.name.removeprefix("step-")))
    return (steps[-1] / "state" / ADAPTER).read_bytes()


def best_adapter(out: Path) -> bytes:
    return (out / "work" / "best" / "adapter" / ADAPTER).read_bytes()


def twenty_steps(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The runs, as long as `alone`."""
    return [{"rows": 80, **run, "settings": {**TWENTY, **run.get("settings", {})}} for run in runs]


def assert_goes_on(resumed: Path, whole: Path) -> None:
    """The run that was stopped ended as the undisturbed one, to the bit, and did not begin anew."""
    assert last_adapter(resumed) == last_adapter(whole)
    assert best_adapter(resumed) == best_adapter(whole)
    assert result(resumed)["curve"] == result(whole)["curve"]
    assert 0 < result(resumed)["points"] < result(whole)["points"]


def losses(curve: list[dict[str, Any]]) -> list[float]:
    return [point["train"] or point["validation"] for point in curve]


@pytest.fixture(scope="module")
def alone(tiny_model: Path, shared_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The curve of twenty steps in this process, without DeepSpeed."""
    place, what = tmp_path_factory.mktemp("alone"), job(tiny_model, settings=CURVE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RESEED_CACHE", str(shared_cache))
        summary = train(what, PROBLEM, rows(80), rows(87)[80:], place / "work", Silent())
    assert summary is not None
    assert summary.steps == 20
    curve = [{"step": p.step, "train": p.train, "validation": p.validation} for p in summary.curve]
    return {"curve": curve, "digest": summary.adapter_digest_start, "loss": summary.best_loss}


def assert_like_alone(run: dict[str, Any], alone: dict[str, Any]) -> None:
    assert run["adapter_digest_start"] == alone["digest"]
    assert [point["step"] for point in run["curve"]] == [point["step"] for point in alone["curve"]]
    assert losses(run["curve"]) == pytest.approx(losses(alone["curve"]), rel=1e-4)
    assert run["best_loss"] == pytest.approx(alone["loss"], rel=1e-4)


def test_two_ranks_of_one_node(tiny_model: Path, shared_cache: Path, tmp_path: Path, alone: dict[str, Any]) -> None:
    """One start of two ranks: each stage whole; 2 and 3 stopped after step 10 and gone on; both ways of offloading."""
    two, three = {"zero_stage": 2}, {"zero_stage": 3}
    runs: dict[str, dict[str, Any]] = {
        "whole-1": {"settings": {"zero_stage": 1}},
        "whole-2": {"settings": two},
        "stopped-2": {"settings": two, "stop_after": 10},
        "resumed-2": {"settings": two, "resume": str(tmp_path / "stopped-2" / "seen" / "step-10")},
        "one-worker": {"settings": two, "resume": str(tmp_path / "stopped-2" / "seen" / "step-10"), "world": 1},
        "other-stage": {"settings": three, "resume": str(tmp_path / "stopped-2" / "seen" / "step-10")},
        "whole-3": {"settings": three},
        "stopped-3": {"settings": three, "stop_after": 10},
        "resumed-3": {"settings": three, "resume": str(tmp_path / "stopped-3" / "seen" / "step-10")},
        "optimizer": {"settings": {**two, "offload": "optimizer"}},
        "parameters": {"settings": {**three, "offload": "parameters"}},
        "bfloat16": {"settings": three, "model": {"dtype": "bfloat16"}},
        "ended-3": {"settings": {**three, **ENDED}},
        "again-3": {"settings": {**three, **ENDED}, "resume": str(tmp_path / "ended-3" / "seen")},
        "metric-3": {"settings": {**three, **METRIC}, "embedder": str(save_embedder(tmp_path / "embedder"))},
        "four-bit-2": {"settings": {**two, "targets": EXPERTS}, "model": FOUR_BIT},
        "four-bit-3": {"settings": {**three, "targets": EXPERTS}, "model": FOUR_BIT},
    }
    placed = [{"out": str(tmp_path / name), **run} for name, run in runs.items()]
    torchrun(tmp_path, shared_cache, tiny_model, twenty_steps(placed))
    for name in ("whole-1", "whole-2", "whole-3", "optimizer", "parameters"):
        assert_like_alone(result(tmp_path / name), alone)
    for stage in "23":
        checkpoint = tmp_path / f"stopped-{stage}" / "seen" / "step-10"
        assert {path.name for path in checkpoint.iterdir()} == {"best", "state", "origin.json", "sums-0.json"}
        shards = [path.name for path in (checkpoint / "state").rglob("*optim_states.pt")]
        assert len(shards) == 2, "every rank's shard is part of the checkpoint"
        assert_goes_on(tmp_path / f"resumed-{stage}", tmp_path / f"whole-{stage}")
    assert "the checkpoint is of 2 workers and cannot be resumed with 1" in result(tmp_path / "one-worker")["error"]
    assert "training.zero_stage was 2 and is 3" in result(tmp_path / "other-stage")["error"]
    assert losses(result(tmp_path / "bfloat16")["curve"]) == pytest.approx(losses(alone["curve"]), rel=0.01)
    two_bits, three_bits = (losses(result(tmp_path / f"four-bit-{stage}")["curve"]) for stage in "23")
    assert three_bits == pytest.approx(two_bits, rel=1e-4), "experts in 4 bit that take LoRA, too"
    ended, again = (result(tmp_path / name) for name in ("ended-3", "again-3"))
    assert len(ended["curve"]) < 40, "patience was at its end before the rows were"
    assert again["points"] == 0, "killed at its very end, it has only to look at its adapter"
    assert again["logit_shift"] == pytest.approx(ended["logit_shift"], rel=1e-3)
    judged = result(tmp_path / "metric-3")["curve"]
    assert losses(judged) == pytest.approx(losses(alone["curve"]), rel=1e-4)
    assert all(point["metric"] is not None for point in judged if point["validation"] is not None)
    spec = job(tiny_model).model
    assert_whole_adapter(tmp_path / "whole-3", tmp_path / "whole-2", spec)
    assert_whole_adapter(tmp_path / "parameters", tmp_path / "whole-2", spec)
    assert_whole_adapter(tmp_path / "four-bit-3", tmp_path / "four-bit-2", spec.model_copy(update=FOUR_BIT))


def assert_whole_adapter(run: Path, like: Path, spec: ModelSpec) -> None:
    """Not the 40 bytes of a sharded adapter (trl#4416): it loads onto a whole model, and has another stage's shapes."""
    folder = run / "work" / "best" / "adapter"
    weights, others = load_file(folder / ADAPTER), load_file(like / "work" / "best" / "adapter" / ADAPTER)
    assert {name: weight.shape for name, weight in weights.items()} == {n: w.shape for n, w in others.items()}
    base = materialise(spec)
    moved = verify_adapter(folder, load_model(base, spec), load_tokenizer(base))
    assert moved == pytest.approx(result(run)["logit_shift"], rel=0.1), "what the ranks found together"


def test_two_nodes_of_one_rank(tiny_model: Path, shared_cache: Path, tmp_path: Path, alone: dict[str, Any]) -> None:
    runs = []
    for stage in (3, 2):  # as the first of a process, ZeRO-3 shards the model before DeepSpeed knows the ranks
        settings, merged = {"zero_stage": stage}, str(tmp_path / f"stopped-{stage}" / "merged")
        runs += [
            {"out": str(tmp_path / f"whole-{stage}"), "settings": settings},
            {"out": str(tmp_path / f"stopped-{stage}"), "settings": settings, "stop_after": 10, "merge_step": 10},
            {"out": str(tmp_path / f"resumed-{stage}"), "settings": settings, "resume": merged},
        ]
    nodes(tmp_path, shared_cache, tiny_model, 2, twenty_steps(runs))
    for stage in (2, 3):
        assert_like_alone(result(tmp_path / f"whole-{stage}"), alone)
        assert damage_of(tmp_path / f"stopped-{stage}" / "merged") is None, "each node told of its part"
        assert_goes_on(tmp_path / f"resumed-{stage}", tmp_path / f"whole-{stage}")


def test_one_rank(tiny_model: Path, shared_cache: Path, tmp_path: Path, alone: dict[str, Any]) -> None:
    one, again, refused = (tmp_path / name for name in ("one", "again", "refused"))
    runs = [
        {"out": str(one)},
        {"out": str(again)},
        {"out": str(refused), "environment": {"ACCELERATE_USE_CPU": "true"}},
    ]
    nodes(tmp_path, shared_cache, tiny_model, 1, twenty_steps(runs))
    assert_like_alone(result(one), alone)
    assert last_adapter(one) == last_adapter(again)
    assert result(one) == result(again)
    assert "DeepSpeed was asked for but is off; unset ACCELERATE_USE_CPU" in result(refused)["error"]
