"""A run resumes only from its own checkpoint: another's, or a damaged one, is refused with what differs."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny import save_model
from tiny_rows import PROBLEM, SHORT, PowerError, Recorder, job, rows

from reseed.records import ReseedError
from reseed.training.checkpoints import ORIGIN, assemble_checkpoint, damage_of, origin_of
from reseed.training.job import Silent, TrainJob
from reseed.training.loop import train
from reseed.training.zero.unpickling import only_tensors


@pytest.fixture(scope="module")
def checkpoint(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory, shared_cache: Path) -> Path:
    """Of a run that was stopped after two of three steps."""
    place = tmp_path_factory.mktemp("stopped")
    watcher = Recorder(place / "seen", stop_after=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RESEED_CACHE", str(shared_cache))
        with pytest.raises(PowerError):
            train(job(tiny_model), PROBLEM, rows(12), rows(16)[12:], place / "work", watcher)
    return place / "seen" / "step-2"


def go_on(what: TrainJob, checkpoint: Path, place: Path, count: int = 12) -> list[int]:
    watcher = Recorder(place / "seen")
    train(what, PROBLEM, rows(count), rows(16)[12:], place / "work", watcher, checkpoint)
    return watcher.steps


def test_its_own_run_goes_on(checkpoint: Path, tiny_model: Path, tmp_path: Path) -> None:
    assert go_on(job(tiny_model), checkpoint, tmp_path) == [3]


def test_another_run_s_is_refused(checkpoint: Path, tiny_model: Path, tmp_path: Path) -> None:
    mine = job(tiny_model)
    other = SHORT.model_copy(update={"rank": 4, "learning_rate": 0.02})
    bf16 = replace(mine, model=mine.model.model_copy(update={"dtype": "bfloat16"}))
    stranger = save_model(tmp_path / "stranger", seed=1)
    for what, message in (
        (job(tiny_model, seed=1), r"seed was 0 and is 1; set them back, or begin anew"),
        (
            job(tiny_model, settings=other),
            r"training\.learning_rate was 0\.01 and is 0\.02; training\.rank was 8 and is 4",
        ),
        (job(tiny_model, micro=2), r"micro_batch_size was 4 and is 2"),
        (bf16, r"model\.dtype was 'float32' and is 'bfloat16'"),
        (job(stranger), r"another run's: model was '\w+' and is '\w+';"),
        (
            replace(mine, world=2),
            r"is of 1 workers and cannot be resumed with 2; set the profile's training\.workers to 1",
        ),
        (replace(mine, deepspeed=True), r"deepspeed was False and is True"),
    ):
        with pytest.raises(ReseedError, match=message):
            go_on(what, checkpoint, tmp_path / "refused")
    with pytest.raises(ReseedError, match=r"rows was '\w+' and is '\w+'"):
        go_on(mine, checkpoint, tmp_path / "refused", count=8)
    assert not (tmp_path / "refused").exists(), "refused before anything is written"


@pytest.mark.parametrize("harm", ["origin.json", "state/optimizer.pt", "text"])
def test_a_damaged_one_is_refused(checkpoint: Path, tiny_model: Path, tmp_path: Path, harm: str) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(checkpoint, damaged)
    if harm == "text":
        (damaged / "origin.json").write_text('{"workers": 1')
    else:
        (damaged / harm).unlink()
    message = r"lacks optimizer\.pt; remove it" if harm.startswith("state") else r"no readable origin\.json; remove it"
    with pytest.raises(ReseedError, match=message):
        go_on(job(tiny_model), damaged, tmp_path / "refused")


def test_an_origin_names_no_path(checkpoint: Path, tiny_model: Path) -> None:
    text = (checkpoint / "origin.json").read_text()
    assert json.loads(text)["training.zero_stage"] == SHORT.zero_stage
    assert "/" not in text
    assert tiny_model.name not in text


def test_other_validation_rows_are_another_run_s(checkpoint: Path, tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(ReseedError, match=r"validation was '\w+' and is '\w+'"):
        train(job(tiny_model), PROBLEM, rows(12), rows(18)[12:], tmp_path, Silent(), checkpoint)


def test_a_stage_s_name_is_no_part_of_the_run(tiny_model: Path) -> None:
    """Its adapter is: a first stage that got another name has the same key, and the second one continues it."""
    one, other = (job(tiny_model, settings=SHORT.model_copy(update={"start_from": name})) for name in ("a", "b"))
    assert origin_of(one, tiny_model, rows(3), rows(2)) == origin_of(other, tiny_model, rows(3), rows(2))


@pytest.mark.parametrize("rank", [0, 2])
def test_only_the_node_of_rank_0_hands_over_the_best(tmp_path: Path, rank: int) -> None:
    """Another node has the best that it continued, which would be written over the newer one."""
    (tmp_path / "best").mkdir()
    (tmp_path / "checkpoint-4").mkdir()
    (tmp_path / ORIGIN).write_text("{}")
    whole = assemble_checkpoint(tmp_path, 4, rank)
    assert {path.name for path in whole.iterdir()} == {ORIGIN, "state", f"sums-{rank}.json"} | (
        {"best"} if rank == 0 else set()
    )


def cut(path: Path) -> None:
    """Half of the file is lost."""
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)


def flip(path: Path) -> None:
    """One bit in the middle is another."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda one: None, None),
        (lambda one: cut(one / "state" / "optimizer.pt"), r"state/optimizer\.pt has \d+ bytes, not \d+"),
        (lambda one: flip(one / "state" / "optimizer.pt"), r"state/optimizer\.pt has another SHA-256"),
        (lambda one: (one / ORIGIN).unlink(), r"origin\.json is missing"),
        (lambda one: (one / "state" / "rng_state_9.pth").touch(), r"state/rng_state_9\.pth does not belong to it"),
        (lambda one: cut(one / "sums-0.json"), r"sums-0\.json is not JSON"),
        (lambda one: (one / "sums-0.json").unlink(), r"it has no sums-0\.json"),
        (shutil.rmtree, r"it has no sums-0\.json"),
    ],
)
def test_damage_is_found(checkpoint: Path, tmp_path: Path, harm: Callable[[Path], object], message: str | None) -> None:
    mine = tmp_path / "mine"
    shutil.copytree(checkpoint, mine)
    harm(mine)
    damage = damage_of(mine)
    assert damage == message if message is None else re.match(message, damage or "")


class Planted:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (self.folder,)


@pytest.mark.parametrize("variable", [None, "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"])
def test_a_planted_pickle_is_never_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str | None) -> None:
    """As DeepSpeed itself reads a checkpoint, whose own records come back."""
    from deepspeed.runtime.checkpoint_engine import TorchCheckpointEngine
    from deepspeed.runtime.fp16.loss_scaler import LossScaler

    if variable is not None:
        monkeypatch.setenv(variable, "1")
    engine, folder, path = TorchCheckpointEngine(), tmp_path / "planted", str(tmp_path / "optim_states.pt")
    state = {"moment": torch.ones(3), "loss_scaler": LossScaler(2.0)}
    torch.save(state, path)
    before = dict(os.environ)
    with only_tensors(deepspeed=True):
        assert engine.load(path)["loss_scaler"].cur_scale == 2.0
    torch.save({**state, "more": Planted(folder)}, path)
    message = r"could run somebody's code: .*mkdir.*; find out who wrote it"
    with pytest.raises(ReseedError, match=message), only_tensors(deepspeed=True):
        engine.load(path)
    assert not folder.exists()
    assert dict(os.environ) == before
    torch.load(path, weights_only=False)
    assert folder.is_dir(), "it would have been"
