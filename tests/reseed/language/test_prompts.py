"""Prompt formats: one text for training and prediction, one BOS, and a boundary that is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny import CHAT
from tiny_rows import PROBLEM, rows
from tokenizers import Tokenizer, decoders, models, normalizers
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from reseed.files import digest
from reseed.generation.engines.transformers_engine import TransformersEngine
from reseed.language.prompts import RENDERING, TEXT, PromptFormat, answer_ids, prompt_ids, prompt_text
from reseed.language.tokens import IGNORED, encode
from reseed.models.names import ModelSpec
from reseed.models.tokenizers import load_tokenizer
from reseed.records import ReseedError, Sampling

CHATTING = PromptFormat("chat")
SYSTEM = PromptFormat("chat", "Answer in one line.")
NO_SYSTEM = (  # as Gemma's: no system role, its own end of a turn, which is not EOS
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}<turn>{{ 'model' if m['role'] == 'assistant' else m['role'] }}\n"
    "{{ m['content'] | trim }}<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<turn>model\n{% endif %}"
)
FORGETFUL = (  # as Mixtral's first one, which passes over other roles; EOS ends a turn
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}[INST] {{ m['content'] }} [/INST]"
    "{% elif m['role'] == 'assistant' %} {{ m['content'] }}{{ eos_token }}{% endif %}{% endfor %}"
)
THINKING = (  # as Qwen3's: without its switch the prompt has no thought, and a finished turn has an empty one
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% if m['role'] == 'assistant' %}<think>\n\n</think>\n\n{% endif %}{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
BACKWARDS = "{% for m in messages %}{{ m['content'] }}{% endfor %}{% if add_generation_prompt %}Answer:{% endif %}"


RENDERED = {1: "08a9a8d02e233ef29b267cfa18e21082"}  # version → digest of what was rendered with it


@pytest.fixture
def tokenizer(tiny_model: Path) -> Any:
    return load_tokenizer(tiny_model)


def beginning(tokenizer: Any, template: str) -> Any:
    """The tokenizer with BOS before every text, as Llama's, Mistral's and Gemma's have it, and a chat template."""
    bos = tokenizer.bos_token
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{bos} $A", special_tokens=[(bos, tokenizer.bos_token_id)]
    )
    tokenizer.add_special_tokens({"additional_special_tokens": ["<end_of_turn>"]})
    tokenizer.chat_template = template
    return tokenizer


def test_the_text_format_is_the_problem_s_own_text(tokenizer: Any) -> None:
    assert prompt_text(tokenizer, "Why?", TEXT) == "Why?"
    assert prompt_text(tokenizer, "Why?", PromptFormat("text", "Be short.")) == "Be short.\n\nWhy?"


def test_the_chat_format_is_the_model_s_own_template(tokenizer: Any) -> None:
    assert prompt_text(tokenizer, "Why?", CHATTING) == "<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n"
    answer = answer_ids(tokenizer, "Why?", " Because.", CHATTING)
    assert tokenizer.decode(answer) == "Because.<|im_end|>"
    assert answer[-1] == tokenizer.eos_token_id
    whole = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because."}], tokenize=False
    )
    ids = tokenizer(whole.rstrip(), add_special_tokens=False).input_ids
    assert prompt_ids(tokenizer, "Why?", CHATTING) + answer == ids, "stock transformers renders the same"


def test_a_system_prompt_in_its_own_turn_or_folded(tokenizer: Any) -> None:
    own = "<|im_start|>system\nAnswer in one line.<|im_end|>\n<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n"
    assert prompt_text(tokenizer, "Why?", SYSTEM) == own
    gemma = beginning(tokenizer, NO_SYSTEM)
    folded = "<|im_start|><turn>user\nAnswer in one line.\n\nWhy?<end_of_turn>\n<turn>model\n"
    assert prompt_text(gemma, "Why?", SYSTEM) == folded
    gemma.chat_template = FORGETFUL
    assert prompt_text(gemma, "Why?", SYSTEM) == "<|im_start|>[INST] Answer in one line.\n\nWhy? [/INST]"


def test_a_text_that_holds_the_system_prompt_hides_no_forgetful_template(tokenizer: Any) -> None:
    mixtral = beginning(tokenizer, FORGETFUL)
    quoted = "You were told: Answer in one line. Why?"
    assert prompt_text(mixtral, quoted, SYSTEM) == f"<|im_start|>[INST] Answer in one line.\n\n{quoted} [/INST]"


@pytest.mark.parametrize("template", [NO_SYSTEM, FORGETFUL, CHAT, THINKING])
@pytest.mark.parametrize("style", [TEXT, CHATTING, SYSTEM])
def test_one_bos_one_eos_and_a_known_boundary(tokenizer: Any, template: str, style: PromptFormat) -> None:
    begun = beginning(tokenizer, template.replace("<|im_start|>", "<turn>").replace("<|im_end|>", "<end_of_turn>"))
    for example, row in zip(encode(PROBLEM, rows(5), begun, 4096, "completion", style).examples, rows(5), strict=True):
        assert example.ids[0] == begun.bos_token_id
        assert example.ids.count(begun.bos_token_id) == 1
        assert example.labels[-1] == begun.eos_token_id
        assert example.ids.count(begun.eos_token_id) == 1
        assert example.labels == (IGNORED,) * example.prompt + example.ids[example.prompt :]
        text = begun.decode(example.ids[example.prompt :], skip_special_tokens=True)
        assert text.strip() == PROBLEM.completion(row).strip()
        assert list(example.ids[: example.prompt]) == prompt_ids(begun, PROBLEM.prompt(row), style)


def test_a_turn_s_own_end_comes_before_eos(tokenizer: Any) -> None:
    gemma = beginning(tokenizer, NO_SYSTEM)
    ids = answer_ids(gemma, "Why?", " Because.", CHATTING)
    assert gemma.decode(ids) == "Because.<end_of_turn><|im_end|>"


def test_no_thought_is_trained_or_asked_for(tokenizer: Any) -> None:
    tokenizer.chat_template = THINKING
    assert prompt_text(tokenizer, "Why?", CHATTING).endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")
    assert tokenizer.decode(answer_ids(tokenizer, "Why?", "Because.", CHATTING)) == "Because.<|im_end|>"


def test_a_template_whose_turns_do_not_follow_its_prompt_is_refused(tokenizer: Any) -> None:
    tokenizer.chat_template = BACKWARDS
    with pytest.raises(ReseedError, match=r"does not begin with its own prompt: .*Answer:.* use prompt_format: text"):
        answer_ids(tokenizer, "Why?", "Because.", CHATTING)


def test_a_model_without_a_template_is_refused(tokenizer: Any) -> None:
    tokenizer.chat_template = None
    with pytest.raises(ReseedError, match=r"training\.prompt_format: 'chat' was asked for, .* no chat template"):
        prompt_ids(tokenizer, "Why?", CHATTING)


def test_another_text_needs_another_version(tokenizer: Any) -> None:
    """The version is in the keys: with the old one, rows that were generated from other prompts would be found."""
    plain = [prompt_text(tokenizer, "Why?", CHATTING)]
    for template in (NO_SYSTEM, FORGETFUL, CHAT, THINKING):
        begun = beginning(tokenizer, template)
        plain += [prompt_text(begun, "Why?", style) for style in (CHATTING, SYSTEM)]
        plain.append(begun.decode(answer_ids(begun, "Why?", " Because.", SYSTEM)))
    assert RENDERED.get(RENDERING) == digest(plain), (
        "raise RENDERING in reseed/language/prompts.py, and note the digest"
    )


def test_sentencepiece_begins_no_answer_with_a_second_space() -> None:
    """Llama's and Mistral's tokenizers put a space before every text: the answer alone would begin with two."""
    words = ["<unk>", "<s>", "</s>", "▁", "▁▁", "▁Why", "▁Because", "?", "."]
    letters = sorted({letter for word in words[3:] for letter in word} - set(words))
    parts = [word[:n] for word in words[5:7] for n in range(2, len(word))]
    vocabulary = {token: n for n, token in enumerate(dict.fromkeys([*words, *letters, *parts]))}
    merges = [("▁", "▁"), *[(w[:n], w[n]) for w in ("▁Why", "▁Because") for n in range(1, len(w))]]
    fast = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, unk_token="<unk>"))
    fast.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    fast.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    llama = PreTrainedTokenizerFast(tokenizer_object=fast, unk_token="<unk>", bos_token="<s>", eos_token="</s>")
    assert llama.convert_ids_to_tokens(llama(" Because.", add_special_tokens=False).input_ids) == ["▁▁", *"Because."]
    ids = answer_ids(llama, "Why?", " Because.")
    assert llama.convert_ids_to_tokens(ids) == ["▁Because", ".", "</s>"]


@pytest.mark.parametrize("style", [TEXT, CHATTING, SYSTEM])
def test_prediction_asks_as_training_did(tiny_model: Path, style: PromptFormat) -> None:
    engine = TransformersEngine(ModelSpec(name=str(tiny_model), dtype="float32"), batch_size=2)
    some = rows(3)
    some[0] = {**some[0], "original_text": some[0]["original_text"] * 20}
    encoded = encode(PROBLEM, some, engine.tokenizer, 300, "completion", style)
    assert encoded.shortened == 1
    for row, example in zip(some, encoded.examples, strict=True):
        room = Sampling(len(example.ids) - example.prompt)
        asked = engine.question(PROBLEM, row, room, 300, style)
        assert (asked.id, asked.templated) == (row["id"], style.templated)
        ids = engine.tokenizer(asked.text, add_special_tokens=not asked.templated).input_ids
        assert tuple(ids) == example.ids[: example.prompt]
