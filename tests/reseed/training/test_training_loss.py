"""The loss: transformers' own, weighted by tokens, the same whatever the shape of the batches."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_rows import PROBLEM, SHORT, Recorder, job, rows

from reseed.language.tokens import IGNORED, Example, encode
from reseed.models.adapters import add_adapter
from reseed.models.cache import materialise
from reseed.models.loading import load_model
from reseed.models.tokenizers import load_tokenizer
from reseed.training.job import Silent
from reseed.training.layout import Layout, collate
from reseed.training.loop import train
from reseed.training.loss import evaluation_loss, logits_only_at, summed_loss


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


# --- logits only where a label is --------------------------------------------------------------------------------------


def full_loss(model: Any, batch: dict[str, torch.Tensor], pad: int, prompt_weight: float = 1.0) -> torch.Tensor:
    """The weighted mean over full logits, written out, with the padding masked."""
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["input_ids"] != pad).logits.float()
    loss = torch.nn.functional.cross_entropy(
        logits[:, :-1].flatten(0, 1), batch["labels"][:, 1:].flatten(), ignore_index=IGNORED, reduction="none"
    )
    weights = (batch["labels"][:, 1:] != IGNORED).float().flatten()
    if "prompt" in batch:
        weights = weights * (1 - (1 - prompt_weight) * batch["prompt"][:, 1:].flatten())
    return (loss * weights).sum() / weights.sum()


def soft_capped() -> Any:
    """A tiny Gemma 2, which caps its logits after the output head."""
    from transformers import Gemma2Config, Gemma2ForCausalLM

    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = Gemma2Config(
            vocab_size=300, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, head_dim=8, initializer_range=0.5, final_logit_softcapping=2.0, pad_token_id=0,
        )  # fmt: skip
        return Gemma2ForCausalLM(config)


@pytest.mark.parametrize("loss_on", ["completion", "weighted"])
@pytest.mark.parametrize("wrapped", ["plain", "adapter", "adapter on the head", "soft cap", "module"])
def test_the_loss_and_its_gradient_are_those_of_full_logits(tiny_model: Path, wrapped: str, loss_on: str) -> None:
    what = job(tiny_model).model
    model = soft_capped() if wrapped == "soft cap" else load_model(materialise(what), what)
    if wrapped.startswith("adapter"):
        targets = ("q_proj", "lm_head") if "head" in wrapped else ("q_proj",)
        model = add_adapter(model, SHORT.model_copy(update={"targets": targets}), 0)
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if "lora_B" in name:
                    weight.normal_(generator=torch.Generator().manual_seed(0), std=0.1)
    some, pad = examples(tiny_model, 6, loss_on)
    layout = Layout(pad, prompt_weight=0.25 if loss_on == "weighted" else None)
    batch, found = layout(some), []
    called = torch.nn.parallel.DataParallel(model, device_ids=[]) if wrapped == "module" else model
    for full in (False, True):
        model.zero_grad()
        if full:
            mean = full_loss(model, batch, pad, 0.25)
        else:
            total, count = summed_loss(called, batch, layout.prompt_weight)
            mean = total / count
        mean.backward()
        gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
        found.append((mean.item(), gradients))
    (ours, gradients), (wanted, wanted_gradients) = found
    assert ours == pytest.approx(wanted, rel=1e-6)
    assert gradients.keys() == wanted_gradients.keys()
    scale = max(float(gradient.abs().max()) for gradient in wanted_gradients.values())
    assert scale > 0
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient / scale, wanted_gradients[name] / scale, rtol=1e-4, atol=1e-6)


def test_the_output_head_runs_only_where_a_label_is(model: Any) -> None:
    ids = torch.arange(3, 43).reshape(2, 20)
    places = torch.tensor([4, 19, 20, 37])
    with torch.no_grad():
        with logits_only_at(model, places):
            some = model(input_ids=ids).logits
        full = model(input_ids=ids).logits
    assert some.shape == (4, 300)
    assert full.shape == (2, 20, 300), "the next forward is whole again"
    torch.testing.assert_close(some, full.flatten(0, 1)[places])


def test_weights_at_their_ends_are_the_completion_and_all(model: Any, tiny_model: Path) -> None:
    def loss(loss_on: str, weight: float | None) -> float:
        some, pad = examples(tiny_model, 4, loss_on)
        return evaluation_loss(model, some, Layout(pad, prompt_weight=weight), 4)

    assert loss("weighted", 1.0) == pytest.approx(loss("all", None), rel=1e-6)
    assert loss("weighted", 1e-6) == pytest.approx(loss("completion", None), rel=1e-4)
    between = loss("weighted", 0.1)
    assert min(loss("weighted", 1.0), loss("completion", None)) < between
    assert between < max(loss("weighted", 1.0), loss("completion", None))


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
        assert evaluation_loss(model, some, Layout(pad), size) == pytest.approx(mean, rel=1e-5)


def test_evaluation_restores_the_mode(model: Any, tiny_model: Path) -> None:
    some, pad = examples(tiny_model, 2, "completion")
    for training in (True, False):
        model.train(training)
        evaluation_loss(model, some, Layout(pad), 2)
        assert model.training is training


@pytest.mark.parametrize("loss_on", ["completion", "all", "weighted"])
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


def test_what_labels_count_does_not_go_by_the_class_s_name(tiny_model: Path, tmp_path: Path) -> None:
    """Transformers counts a row's first token too where the name lacks "ForCausalLM": the loss was 0.4 % too small."""
    settings, losses = SHORT.model_copy(update={"loss_on": "all", "evaluate_every": 1}), []
    for separate in (False, True):
        what = job(tiny_model, settings=settings)
        what = replace(what, model=what.model.model_copy(update={"separate_experts": separate}))
        place = tmp_path / str(separate)
        summary = train(what, PROBLEM, rows(8), rows(10)[8:], place / "work", Silent())
        assert summary is not None
        losses.append([point.train for point in summary.curve if point.train is not None])
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
