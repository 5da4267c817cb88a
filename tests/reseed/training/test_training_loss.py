"""The loss: transformers' own, weighted by tokens, the same whatever the shape of the batches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_rows import PROBLEM, SHORT, Recorder, job, rows

from reseed.models.cache import materialise
from reseed.models.loading import load_model
from reseed.models.tokenizers import load_tokenizer
from reseed.training.loop import train
from reseed.training.loss import evaluation_loss, summed_loss
from reseed.training.tokens import Example, collate, encode


@pytest.fixture(params=["llama", "mixtral"])
def model(request: pytest.FixtureRequest, tiny_model: Path) -> Any:
    spec = job(tiny_model, sparse=request.param == "mixtral").model
    return load_model(materialise(spec), spec).eval()


def examples(folder: Path, count: int, loss_on: str) -> tuple[list[Example], int]:
    tokenizer = load_tokenizer(folder)
    some = rows(count, words=6) + rows(count, words=20)[count // 2 :]
    return encode(PROBLEM, some, tokenizer, 1024, loss_on).examples, tokenizer.pad_token_id


@pytest.mark.parametrize("loss_on", ["completion", "all"])
def test_summed_loss_is_the_cross_entropy_over_full_logits(model: Any, tiny_model: Path, loss_on: str) -> None:
    batch = collate(*examples(tiny_model, 6, loss_on))
    batch = {key: value.to(model.device) for key, value in batch.items()}
    with torch.no_grad():
        loss, count = summed_loss(model, batch)
        wanted = model(**batch).loss
    assert int(count) == int((batch["labels"][:, 1:] != -100).sum())
    assert float(loss) / int(count) == pytest.approx(float(wanted), rel=1e-5)


def test_summed_loss_has_the_gradients_of_the_full_loss(model: Any, tiny_model: Path) -> None:
    batch = collate(*examples(tiny_model, 4, "completion"))
    loss, count = summed_loss(model, batch)
    (loss / count).backward()
    weight = model.model.layers[0].self_attn.q_proj.weight
    ours = weight.grad.clone()
    model.zero_grad()
    model(**batch).loss.backward()
    assert float(ours.abs().max()) > 0
    torch.testing.assert_close(ours, weight.grad, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("loss_on", ["completion", "all"])
def test_evaluation_loss_does_not_depend_on_the_batch_size(model: Any, tiny_model: Path, loss_on: str) -> None:
    some, pad = examples(tiny_model, 10, loss_on)
    with torch.no_grad():
        total = sum(
            float(model(**one).loss) * int((one["labels"][:, 1:] != -100).sum())
            for one in (collate([example], pad) for example in some)
        )
    mean = total / sum(sum(label != -100 for label in example.labels[1:]) for example in some)
    for size in (1, 4, 8):
        assert evaluation_loss(model, some, pad, size) == pytest.approx(mean, rel=1e-5)


def test_evaluation_restores_the_mode(model: Any, tiny_model: Path) -> None:
    some, pad = examples(tiny_model, 2, "completion")
    for training in (True, False):
        model.train(training)
        evaluation_loss(model, some, pad, 2)
        assert model.training is training


@pytest.mark.parametrize("loss_on", ["completion", "all"])
def test_gradient_accumulation_changes_nothing(tiny_model: Path, tmp_path: Path, loss_on: str) -> None:
    from safetensors.torch import load_file

    lengths = rows(12, words=4) + rows(24, words=20)[12:]  # of different lengths, so that a mean of means would show
    settings = SHORT.model_copy(update={"batch_size": 8, "evaluate_every": 1, "loss_on": loss_on})
    adapters, losses = [], []
    for micro in (1, 2, 4, 8):
        work = tmp_path / str(micro)
        watcher = Recorder(tmp_path / f"seen-{micro}")
        summary = train(job(tiny_model, settings=settings, micro=micro), PROBLEM, lengths, rows(3), work, watcher)
        assert summary is not None
        assert summary.steps == 3  # the first step of Adam hides how a gradient is scaled
        adapters.append(load_file(work / "best" / "adapter" / "adapter_model.safetensors"))
        losses.append([point.train or point.validation for point in summary.curve])
    for adapter, loss in zip(adapters[1:], losses[1:], strict=True):
        assert loss == pytest.approx(losses[0], rel=1e-5)
        for name, weight in adapter.items():
            torch.testing.assert_close(weight, adapters[0][name], rtol=1e-3, atol=1e-5)
