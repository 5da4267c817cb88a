from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from reseed.evaluation.scoring import Scorer, best_constant
from reseed.language.embedding import load_embedder
from reseed.problems import load_problem
from reseed.recipe.profile import load_profile

if TYPE_CHECKING:
    from reseed.problems import Embed

pytestmark = pytest.mark.slow
PROBLEM = load_problem("prompt-recovery")


@pytest.fixture(scope="module")
def encoded() -> list[str]:
    """Every text that the model was really given."""
    return []


@pytest.fixture(scope="module")
def embed(encoded: list[str]) -> Iterator[Embed]:
    """The packaged MiniLM, with a note of what it encodes."""
    from sentence_transformers import SentenceTransformer

    original = SentenceTransformer.encode

    def noted(self: Any, texts: list[str], **options: Any) -> Any:
        encoded.extend(texts)
        return original(self, texts, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SentenceTransformer, "encode", noted)
        yield load_embedder(load_profile("laptop").roles.embedder)


def test_vectors_are_of_unit_length_in_the_order_of_the_texts(embed: Embed) -> None:
    texts = ["Make it rhyme.", "Translate it into Latin.", "Make it rhyme.", ""]
    vectors = embed(texts)
    assert vectors.shape[0] == 4
    assert vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(4), abs=1e-5)
    assert (vectors[0] == vectors[2]).all()
    assert (embed(texts[::-1])[::-1] == vectors).all(), "equal texts have equal bits, whatever stands beside them"


def test_alike_texts_are_nearer_than_others(embed: Embed) -> None:
    rhyme, alike, other = embed(["Make it rhyme.", "Turn it into a rhyming poem.", "Report it as a weather forecast."])
    assert rhyme @ alike > rhyme @ other + 0.2


def test_identical_answer_scores_one(embed: Embed) -> None:
    row = PROBLEM.row("a", "Make it rhyme.", "b")
    identical, blank = PROBLEM.scores(["Make it rhyme.", ""], [row, row], embed)
    assert identical == pytest.approx(1, abs=1e-6)
    assert blank < 0.5


def test_best_of_400_constants_is_quick_and_every_text_is_embedded_once(embed: Embed, encoded: list[str]) -> None:
    places = ["a harbour", "a kitchen", "a courtroom", "a spaceship", "a monastery", "a stadium", "a bakery", "a mine"]
    people = ["sailor", "cook", "judge", "pilot", "monk", "coach", "baker", "miner", "poet", "child"]
    prompts = [f"Rewrite it as a {one} in {place}, {how}." for one in people for place in places
               for how in ("calmly", "in anger", "as a list", "in rhyme", "briefly", "politely")]  # fmt: skip
    train = [PROBLEM.row("x", prompt, "y") for prompt in prompts]
    held_out = [PROBLEM.row(f"text {n}", prompts[(7 * n) % 120], f"other {n}") for n in range(120)]
    encoded.clear()
    started = time.process_time()  # other tests may run beside it
    best = best_constant(Scorer(PROBLEM, held_out, embed), train, [row["rewrite_prompt"] for row in held_out])
    assert time.process_time() - started < 30
    assert len(encoded) == len(set(encoded))
    candidates = set(prompts)
    assert best is not None
    assert best[0] in candidates
    others = Scorer(PROBLEM, held_out, embed)
    assert best[1].mean() <= max(others.constant(text).mean() for text in candidates), "chosen elsewhere, so no better"
