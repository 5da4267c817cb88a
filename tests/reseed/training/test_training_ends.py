"""When training ends before its last step: patience, a loss that is NaN or infinite, and memory that is used up."""

from __future__ import annotations

import resource
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny_rows import PROBLEM, SHORT, PowerError, Recorder, job, rows

from reseed.language.tokens import encode
from reseed.models.tokenizers import load_tokenizer
from reseed.records import LossPoint, ReseedError, Row
from reseed.training.early import out_of_patience
from reseed.training.finite import StepLosses
from reseed.training.job import Silent, TrainJob, TrainSummary
from reseed.training.loop import train
from reseed.training.memory.out_of_memory import memory_explained
from reseed.training.order import row_order

# twelve rows, three steps an epoch, evaluated at every step; it overshoots
STEEP = SHORT.model_copy(update={"epochs": 6, "learning_rate": 1.0, "evaluate_every": 1})
ADAPTER = "adapter_model.safetensors"


def run(
    place: Path, what: TrainJob, resume: Path | None = None, stop_after: int | None = None
) -> tuple[TrainSummary, Recorder]:
    watcher = Recorder(place / "seen", stop_after)
    summary = train(what, PROBLEM, rows(12), rows(16)[12:], place / "work", watcher, resume)
    assert summary is not None
    return summary, watcher


def test_patience_counts_evaluations_since_the_best() -> None:
    curve = [LossPoint(step, train=1.0) for step in range(1, 9)] + [LossPoint(s, validation=1.0) for s in (2, 4, 6, 8)]
    assert not out_of_patience(None, 2, curve)
    assert [out_of_patience(patience, 2, curve) for patience in (2, 3, 4)] == [True, True, False]
    assert not out_of_patience(1, 8, curve)


def test_training_stops_when_patience_is_used_up(tiny_model: Path, tmp_path: Path) -> None:
    whole, _ = run(tmp_path / "whole", job(tiny_model, settings=STEEP, sparse=False))
    patient = STEEP.model_copy(update={"patience": 2})
    summary, watcher = run(tmp_path / "patient", job(tiny_model, settings=patient, sparse=False))
    assert whole.steps == 18
    assert summary.steps == summary.best_step + 2 < 18
    assert summary.curve == tuple(point for point in whole.curve if point.step <= summary.steps)
    assert watcher.steps[-1] == summary.steps, "the last state is saved as ever"
    kept = load_file(tmp_path / "patient" / "work" / "best" / "adapter" / ADAPTER)
    then = load_file(watcher.folder / f"step-{summary.best_step}" / "state" / ADAPTER)
    assert all(kept[name].equal(then[name]) for name in then)


def test_tokens_are_counted_as_often_as_they_come(tiny_model: Path, tmp_path: Path) -> None:
    sizes = [len(e.ids) for e in encode(PROBLEM, rows(12), load_tokenizer(tiny_model), 320, "completion").examples]
    patient = STEEP.model_copy(update={"patience": 2})
    summary, _ = run(tmp_path, job(tiny_model, settings=patient, sparse=False))
    epochs, rest = divmod(summary.steps, 3)
    assert rest, "the last epoch is meant to be cut here"
    cut = row_order(sizes, 1, seed=epochs)[: 4 * rest]
    assert summary.tokens_seen == epochs * sum(sizes) + sum(sizes[row] for row in cut)


def test_patience_survives_a_stop(tiny_model: Path, tmp_path: Path) -> None:
    what = job(tiny_model, settings=STEEP.model_copy(update={"patience": 3}), sparse=False)
    undisturbed, seen = run(tmp_path / "undisturbed", what)
    for stop_after in (undisturbed.best_step + 1, undisturbed.steps):
        place = tmp_path / str(stop_after)
        with pytest.raises(PowerError):
            run(place / "stopped", what, stop_after=stop_after)
        resumed, again = run(place / "resumed", what, resume=place / "stopped" / "seen" / f"step-{stop_after}")
        assert resumed == undisturbed
        assert again.steps == [step for step in seen.steps if step > stop_after]


@pytest.fixture(scope="module")
def spoilt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose embedding of one character is NaN, so that only rows with that character give NaN."""
    from tiny import save_tokenizer
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("spoilt")
    save_tokenizer(folder)
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=300, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4,
            max_position_embeddings=1024, bos_token_id=1, eos_token_id=2, pad_token_id=2,
        )
    )  # fmt: skip
    (token,) = token_ids(folder, "~")
    model.get_input_embeddings().weight.data[token] = float("nan")
    model.save_pretrained(folder)
    return folder


def token_ids(folder: Path, text: str) -> list[int]:
    return list(load_tokenizer(folder)(text, add_special_tokens=False).input_ids)


def with_tilde(row: Row) -> Row:
    return PROBLEM.row(row["original_text"] + " ~", row["rewrite_prompt"], row["rewritten_text"])


@pytest.mark.parametrize("micro", [1, 4])
def test_a_loss_that_is_no_number_names_its_step_and_rows(spoilt: Path, tmp_path: Path, micro: int) -> None:
    some = rows(24)
    some[9] = with_tilde(some[9])
    watcher = Recorder(tmp_path / "seen")
    what = job(spoilt, settings=SHORT.model_copy(update={"evaluate_every": 1}), sparse=False, micro=micro)
    with pytest.raises(ReseedError, match=r"the loss is nan at step \d+, in the batch of rows") as raised:
        train(what, PROBLEM, some, rows(28)[24:], tmp_path / "work", watcher)
    message = str(raised.value)
    step = int(message.partition("at step ")[2].partition(",")[0])
    named = message.partition("rows ")[2].partition(";")[0].split(", ")
    assert some[9]["id"] in named
    assert len(named) == micro, "no other rows than those of the batch"
    assert watcher.steps == list(range(1, step)), "every step before is kept, and nothing after"
    assert ("there is no checkpoint yet" if step == 1 else f"the checkpoint of step {step - 1} is kept") in message
    for saved in watcher.steps:
        kept = load_file(watcher.folder / f"step-{saved}" / "state" / ADAPTER)
        assert all(bool(weight.isfinite().all()) for weight in kept.values())


def test_a_learning_rate_that_blows_up_stops_at_the_step_and_not_at_the_next_log(
    tiny_model: Path, tmp_path: Path
) -> None:
    wild = SHORT.model_copy(update={"learning_rate": 1e30, "evaluate_every": 100})
    with pytest.raises(ReseedError, match=r"loss is (nan|inf) at step 2, .* lower training\.learning_rate"):
        run(tmp_path, job(tiny_model, settings=wild))


def test_rows_are_found_in_a_padded_and_in_a_packed_batch(tiny_model: Path) -> None:
    tokenizer = load_tokenizer(tiny_model)
    some = rows(6)
    examples = encode(PROBLEM, some, tokenizer, 512, "completion").examples
    losses = StepLosses(examples, [row["id"] for row in some])
    packed = torch.tensor([[*examples[4].ids, *examples[1].ids, tokenizer.pad_token_id]])
    assert losses.rows(packed) == [some[1]["id"], some[4]["id"]]
    losses.add(packed, torch.tensor(1.0))
    losses.add(packed[:, :10], torch.tensor(float("inf")))
    with pytest.raises(ReseedError, match=r"the loss is inf at step 7.* the checkpoint of step 4 is kept"):
        losses.check(7, save_every=4)
    losses.add(packed, torch.tensor(1.0))
    losses.check(8, save_every=4)  # a new step begins with none


def used_address_space() -> int:
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmSize")]
    return int(line.split()[1]) * 1024


def test_out_of_memory_says_what_was_tried_and_what_would_fit(tiny_model: Path, tmp_path: Path) -> None:
    """The allocation really fails: the process may not grow by more than a few megabytes."""
    long = [PROBLEM.row("word " * 150 + str(n), row["rewrite_prompt"], "WORD") for n, row in enumerate(rows(32))]
    settings = SHORT.model_copy(update={"batch_size": 32, "max_tokens": 1000})
    what = replace(job(tiny_model, settings=settings, micro=32), world=1)
    run(tmp_path / "warm", job(tiny_model))  # what is allocated once is there
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used_address_space() + 40_000_000, before[1]))
    try:
        with pytest.raises(ReseedError) as raised:
            train(what, PROBLEM, long, rows(36)[32:], tmp_path / "work", Silent())
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
    message = str(raised.value)
    assert "out of memory with 32 rows a worker of up to 1000 tokens, float32, rank 8, without gradient" in message
    assert "lower the profile's training.micro_batch_size to 16" in message
    assert "set training.gradient_checkpointing to true" in message
    assert "lower training.max_tokens to 500" in message


def test_only_cures_that_are_left_are_named(tiny_model: Path) -> None:
    spared = SHORT.model_copy(update={"gradient_checkpointing": True, "batch_size": 1, "method": "qlora"})
    with (
        pytest.raises(ReseedError, match=r"1 row a worker.* with gradient checkpointing .*\); lower training\.max_tok"),
        memory_explained(job(tiny_model, settings=spared)),
    ):
        torch.empty(1 << 50)


def test_other_errors_stay_what_they_are(tiny_model: Path) -> None:
    def wrong() -> Any:
        return torch.ones(2) @ torch.ones(3)

    with pytest.raises(RuntimeError, match="size"), memory_explained(job(tiny_model)):
        wrong()
