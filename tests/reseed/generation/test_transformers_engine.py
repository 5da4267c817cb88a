"""The engine: every answer is the one its prompt would get alone, whatever stands beside it."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from tiny import save_tokenizer
from tiny_talker import save_talker
from tokenizers.processors import TemplateProcessing
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    GenerationConfig,
)

from reseed.generation.engines.transformers_engine import TransformersEngine
from reseed.language.prompts import prompt_ids
from reseed.models.adapters import add_adapter, save_adapter
from reseed.models.loading import load_model
from reseed.models.names import ModelSpec, Upcycle
from reseed.problems import load_problem
from reseed.records import Generation, Prompt, Sampling
from reseed.settings import TrainingSettings

TEXT = "the sea rolls in grey and slow while gulls cry over harbour walls and old boats creak at their ropes"
WORDS = TEXT.split()
GREEDY = Sampling(12)
DRAWN = Sampling(40, temperature=1.0, top_p=0.95)
LONG = Sampling(150, temperature=1.0, top_p=1.0)  # a random model of 300 tokens meets EOS in about half the answers


def spec_of(model: Path, **changes: Any) -> ModelSpec:
    return ModelSpec(name=str(model), dtype="float32", **changes)


@pytest.fixture(scope="module")
def engine(tiny_model: Path) -> TransformersEngine:
    return TransformersEngine(spec_of(tiny_model), batch_size=3)


def prompts(count: int = 8) -> list[Prompt]:
    """Of different lengths, their ids in no order."""
    order = random.Random(0)
    return [
        Prompt(f"{order.randrange(10**6):06d}", " ".join(order.sample(WORDS, order.randrange(2, 20))))
        for _ in range(count)
    ]


def by_id(answers: list[Generation]) -> dict[str, Generation]:
    return {answer.id: answer for answer in answers}


def stock(model: Any, tokenizer: Any, text: str, **options: Any) -> list[int]:
    """The new tokens that transformers' own generate gives for one prompt."""
    ids = tokenizer(text, return_tensors="pt").input_ids
    with torch.inference_mode():
        out = model.generate(ids, attention_mask=torch.ones_like(ids), pad_token_id=0, **options)
    return list(out[0, ids.shape[1] :].tolist())


def stock_text(model: Any, tokenizer: Any, text: str, sampling: Sampling = GREEDY) -> str:
    new = stock(model, tokenizer, text, max_new_tokens=sampling.max_new_tokens, do_sample=False)
    return str(tokenizer.decode([token for token in new if token != tokenizer.eos_token_id], skip_special_tokens=True))


def test_greedy_is_transformers_own(engine: TransformersEngine, tiny_model: Path) -> None:
    model, tokenizer = AutoModelForCausalLM.from_pretrained(tiny_model), AutoTokenizer.from_pretrained(tiny_model)
    for prompt in prompts(4):
        (answer,) = engine.generate([prompt], GREEDY, seed=0)
        assert answer.text == stock_text(model, tokenizer, prompt.text)


def test_sampling_is_transformers_own(engine: TransformersEngine, tiny_model: Path) -> None:
    """The same random numbers through stock warpers give the same tokens, and the same end."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(tiny_model), AutoTokenizer.from_pretrained(tiny_model)
    finishes = set()
    for seed, prompt in enumerate(prompts(8)):
        (answer,) = engine.generate([prompt], Sampling(150, 0.9, 0.9), seed)
        torch.manual_seed(seed)
        options = {"do_sample": True, "temperature": 0.9, "top_p": 0.9, "top_k": 0, "max_new_tokens": 150}
        new = stock(model, tokenizer, prompt.text, **options)
        stopped = new[-1] == tokenizer.eos_token_id
        written = new[:-1] if stopped else new
        assert answer.text == tokenizer.decode(written, skip_special_tokens=True)
        assert (answer.finish, answer.tokens) == ("stop" if stopped else "length", len(written))
        finishes.add(answer.finish)
    assert finishes == {"stop", "length"}, "both ends are meant to happen here"


def test_answers_come_in_the_order_of_the_prompts(engine: TransformersEngine) -> None:
    asked = prompts()
    assert [answer.id for answer in engine.generate(asked, GREEDY, seed=0)] == [prompt.id for prompt in asked]
    assert engine.generate([], GREEDY, seed=0) == []


def test_a_prompt_in_a_batch_is_answered_as_alone(engine: TransformersEngine) -> None:
    """Left padding: with padding on the right the shorter prompts of a batch would go on after their pads."""
    asked = prompts()
    together = engine.generate(asked, GREEDY, seed=0)
    assert len({answer.text for answer in together}) == len(asked)
    for prompt, answer in zip(asked, together, strict=True):
        assert [answer] == engine.generate([prompt], GREEDY, seed=0)


def test_the_order_of_the_prompts_changes_no_answer(engine: TransformersEngine) -> None:
    asked = prompts()
    assert by_id(engine.generate(asked, DRAWN, seed=1)) == by_id(engine.generate(asked[::-1], DRAWN, seed=1))


def test_the_batch_size_changes_no_greedy_answer(engine: TransformersEngine, tiny_model: Path) -> None:
    asked = prompts()
    for size in (1, 8):
        assert TransformersEngine(spec_of(tiny_model), size).generate(asked, GREEDY, 0) == engine.generate(
            asked, GREEDY, 0
        )


def test_one_seed_one_text(engine: TransformersEngine) -> None:
    asked = prompts()
    first = engine.generate(asked, DRAWN, seed=7)
    torch.manual_seed(99)  # nothing but the seed counts
    assert engine.generate(asked, DRAWN, seed=7) == first
    others = engine.generate(asked, DRAWN, seed=8)
    assert all(one.text != other.text for one, other in zip(first, others, strict=True))


def test_equal_prompts_are_drawn_apart(engine: TransformersEngine) -> None:
    answers = engine.generate([Prompt(str(n), "the sea") for n in range(6)], DRAWN, seed=0)
    assert len({answer.text for answer in answers}) == 6


def test_finish_says_why_it_stopped(engine: TransformersEngine) -> None:
    answers = engine.generate(prompts(12), LONG, seed=0)
    assert {answer.finish for answer in answers} == {"stop", "length"}
    for answer in answers:
        assert (answer.tokens == LONG.max_new_tokens) == (answer.finish == "length")
        assert "<|im_end|>" not in answer.text
        assert "<|endoftext|>" not in answer.text, "the padding after a row's end is no part of its answer"


def test_a_prompt_too_long_is_reported_and_the_others_go_on(engine: TransformersEngine) -> None:
    asked = prompts(5)
    room = engine.context - GREEDY.max_new_tokens
    ids = prompt_ids(engine.tokenizer, "sea " * 2000)
    just = engine.tokenizer.decode(ids[:room])
    assert len(prompt_ids(engine.tokenizer, just)) == room
    mixed = [asked[0], Prompt("long", "sea " * 2000), *asked[1:], Prompt("just", just), Prompt("over", just + "!")]
    answers = by_id(engine.generate(mixed, GREEDY, seed=0))
    assert answers["long"] == Generation("long", "", "too-long", 0)
    assert answers["over"].finish == "too-long"
    assert answers["just"].finish == "length"
    assert answers["just"].tokens == GREEDY.max_new_tokens
    assert [answers[prompt.id] for prompt in asked] == engine.generate(asked, GREEDY, seed=0)
    assert engine.generate([Prompt("long", "sea " * 2000)], GREEDY, seed=0)[0].finish == "too-long"


def test_a_model_of_text_and_pictures_writes_within_the_context_of_its_text(tmp_path: Path) -> None:
    """As Gemma 3 from 4B on: its configuration says nothing of text but in `text_config`."""
    save_tokenizer(tmp_path)
    text = {
        "vocab_size": 300, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 64,
    }  # fmt: skip
    pictures = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = Gemma3Config(text_config=text, vision_config=pictures | {"image_size": 28, "patch_size": 14})
    Gemma3ForConditionalGeneration(config).save_pretrained(tmp_path)
    short, long = Prompt("short", "sea"), Prompt("long", "sea " * 100)
    answers = TransformersEngine(spec_of(tmp_path), 2).generate([short, long], GREEDY, seed=0)
    assert [answer.finish == "too-long" for answer in answers] == [False, True]


def test_every_stop_token_of_the_model_stops(tiny_model: Path, tmp_path: Path) -> None:
    """Gemma ends a turn with <end_of_turn>, which is not its tokenizer's EOS: its generation config names both."""
    folder = save_talker(tmp_path / "gemma-like")
    turn_end = AutoTokenizer.from_pretrained(folder).convert_tokens_to_ids("Q")  # in no merged token
    GenerationConfig(bos_token_id=1, eos_token_id=[2, turn_end], pad_token_id=0).save_pretrained(folder)
    answers = TransformersEngine(spec_of(folder), 4).generate(prompts(12), LONG, seed=0)
    stopped = [answer for answer in answers if answer.finish == "stop"]
    plain = TransformersEngine(spec_of(tiny_model), 4).generate(prompts(12), LONG, seed=0)
    assert len(stopped) > sum(answer.finish == "stop" for answer in plain)
    assert not any("Q" in answer.text for answer in answers)
    assert all(answer.tokens < LONG.max_new_tokens for answer in stopped)


# --- chat formats ------------------------------------------------------------------------------------------------------


def test_a_user_s_turn_in_the_model_s_own_format(engine: TransformersEngine) -> None:
    asked = engine.chat(Prompt("a", "Hello."))
    assert asked == Prompt("a", "<|im_start|>user\nHello.<|im_end|>\n<|im_start|>assistant\n", templated=True)


@pytest.fixture
def beginning(tmp_path: Path) -> Path:
    """A model whose tokenizer begins every text with BOS, and whose chat template writes BOS itself."""
    folder = save_talker(tmp_path / "beginning")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    bos = tokenizer.bos_token
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{bos} $A", special_tokens=[(bos, tokenizer.bos_token_id)]
    )
    tokenizer.chat_template = "{{ bos_token }}{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}{% endfor %}"
    tokenizer.save_pretrained(folder)
    return folder


def test_one_bos_after_a_chat_template(beginning: Path) -> None:
    engine = TransformersEngine(spec_of(beginning), 1)
    asked = engine.chat(Prompt("a", "Hello."))
    assert asked.text == "<|im_start|>[user] Hello."
    model, tokenizer = AutoModelForCausalLM.from_pretrained(beginning), AutoTokenizer.from_pretrained(beginning)
    (templated,) = engine.generate([asked], GREEDY, 0)
    (plain,) = engine.generate([Prompt("a", "[user] Hello.")], GREEDY, 0)
    assert templated == plain, "one BOS either way"
    assert tokenizer("[user] Hello.").input_ids.count(tokenizer.bos_token_id) == 1
    assert plain.text == stock_text(model, tokenizer, "[user] Hello.")
    (doubled,) = engine.generate([Prompt("a", asked.text)], GREEDY, 0)
    assert doubled.text != templated.text, "a second BOS would show"


def test_without_a_chat_format_the_text_stays_and_keeps_its_bos(beginning: Path) -> None:
    """What a base model was trained on begins with BOS; a job that asks for the chat format does not take it away."""
    (beginning / "chat_template.jinja").unlink()
    engine = TransformersEngine(spec_of(beginning), 1)
    asked = engine.chat(Prompt("a", "Hello."))
    assert asked == Prompt("a", "Hello.")
    model, tokenizer = AutoModelForCausalLM.from_pretrained(beginning), AutoTokenizer.from_pretrained(beginning)
    (answer,) = engine.generate([asked], GREEDY, 0)
    assert answer.text == stock_text(model, tokenizer, "Hello.")


def test_a_student_s_prompt_leaves_room_for_the_answer(engine: TransformersEngine) -> None:
    problem = load_problem("prompt-recovery")
    row = problem.row(" ".join(WORDS * 10), "Shout.", " ".join(WORDS * 10).upper())
    question = engine.question(problem, row, GREEDY, max_tokens=300).text
    assert question.endswith(problem.prompt(row)[-80:])
    assert 150 < len(prompt_ids(engine.tokenizer, question)) <= 300 - GREEDY.max_new_tokens


# --- adapters ----------------------------------------------------------------------------------------------------------


def save_random_adapter(model: Path, folder: Path, seed: int) -> Path:
    """An adapter that changes much, with a dropout that would make its answers random outside evaluation mode."""
    settings = TrainingSettings(rank=4, dropout=0.5)
    adapted = add_adapter(load_model(model, spec_of(model)), settings, seed)
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=2.0)
    save_adapter(adapted, folder, "tiny")
    return folder


@pytest.fixture
def adapters(tiny_model: Path, tmp_path: Path) -> tuple[Path, Path]:
    return save_random_adapter(tiny_model, tmp_path / "a", 1), save_random_adapter(tiny_model, tmp_path / "b", 2)


def test_adapters_are_switched_on_and_off_and_on_again(tiny_model: Path, adapters: tuple[Path, Path]) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    asked = prompts(3)

    def alone(adapter: Path | None) -> list[str]:
        model: Any = AutoModelForCausalLM.from_pretrained(tiny_model)
        if adapter is not None:
            model = PeftModel.from_pretrained(model, adapter).eval()
        return [stock_text(model, tokenizer, prompt.text) for prompt in asked]

    wanted = {adapter: alone(adapter) for adapter in (None, *adapters)}
    assert len({tuple(texts) for texts in wanted.values()}) == 3
    engine = TransformersEngine(spec_of(tiny_model), batch_size=2)
    a, b = adapters
    for adapter in (a, None, b, a, b, None, a):
        answers = engine.generate(asked, GREEDY, 0, adapter)
        assert [answer.text for answer in answers] == wanted[adapter]


def test_an_engine_does_not_grow_with_the_adapters_it_was_asked_for(
    tiny_model: Path, adapters: tuple[Path, Path], tmp_path: Path
) -> None:
    many = [*adapters, save_random_adapter(tiny_model, tmp_path / "c", 3)]
    engine, asked = TransformersEngine(spec_of(tiny_model), 2), prompts(2)

    def size() -> int:
        return sum(weight.numel() for weight in engine.model.parameters())

    bare, sizes, answers = size(), [], []
    for adapter in many * 2:
        answers.append(engine.generate(asked, GREEDY, 0, adapter))
        sizes.append(size())
    assert answers[:3] == answers[3:]
    assert sizes[0] > bare
    assert len(set(sizes)) == 1
    engine.generate(asked, GREEDY, 0)
    assert size() == bare


def test_an_adapter_that_cannot_be_loaded_leaves_none_behind(
    tiny_model: Path, adapters: tuple[Path, Path], tmp_path: Path
) -> None:
    engine, asked = TransformersEngine(spec_of(tiny_model), 2), prompts(2)
    wanted = [engine.generate(asked, GREEDY, 0, adapter) for adapter in (None, adapters[0])]
    (tmp_path / "broken").mkdir()
    with pytest.raises(ValueError, match=r"adapter_config\.json"):
        engine.generate(asked, GREEDY, 0, tmp_path / "broken")
    assert [engine.generate(asked, GREEDY, 0, adapter) for adapter in (None, adapters[0])] == wanted


def test_an_adapter_on_an_upcycled_model(tiny_model: Path, adapters: tuple[Path, Path]) -> None:
    """Attention adapters fit both; the Mixtral of two equal experts answers as the dense model does."""
    asked = prompts(3)
    dense = TransformersEngine(spec_of(tiny_model), 3)
    sparse = TransformersEngine(spec_of(tiny_model, upcycle=Upcycle(experts=2, top_k=1)), 3)
    for adapter in (None, *adapters):
        assert sparse.generate(asked, GREEDY, 0, adapter) == dense.generate(asked, GREEDY, 0, adapter)


def test_the_model_is_in_evaluation_mode(tiny_model: Path, adapters: tuple[Path, Path]) -> None:
    engine = TransformersEngine(spec_of(tiny_model), 2)
    for adapter in (None, *adapters, None):
        engine.generate(prompts(1), Sampling(1), 0, adapter)
        assert not any(module.training for module in engine.model.modules())
