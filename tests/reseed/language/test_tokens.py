"""Rows to token ids: where the prompt ends, where the answer ends, and what is cut."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny_rows import PROBLEM, rows
from tokenizers.processors import TemplateProcessing

from reseed.language.prompts import prompt_ids
from reseed.language.tokens import IGNORED, Example, TooLongError, encode, fit
from reseed.models.tokenizers import load_tokenizer
from reseed.records import ReseedError, Row

LONG = 4096


@pytest.fixture
def tokenizer(tiny_model: Path) -> Any:
    return load_tokenizer(tiny_model)


@pytest.fixture
def begun(tiny_model: Path, tmp_path: Path) -> Any:
    """The same tokenizer, one that begins every text with BOS, as Llama's, Mistral's and Gemma's do."""
    tokenizer = load_tokenizer(tiny_model)
    bos = tokenizer.bos_token
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, tokenizer.bos_token_id)]
    )
    tokenizer.chat_template = "{{ bos_token }}" + tokenizer.chat_template
    tokenizer.save_pretrained(tmp_path / "begun")
    return load_tokenizer(tmp_path / "begun")


def labelled(example: Example) -> list[int]:
    return [label for label in example.labels if label != IGNORED]


def with_text(**columns: str) -> Row:
    return {**rows(1)[0], **columns}


@pytest.mark.parametrize("loss_on", ["completion", "all"])
def test_the_last_label_is_eos(tokenizer: Any, loss_on: str) -> None:
    encoded = encode(PROBLEM, rows(20, words=30), tokenizer, LONG, loss_on)
    assert len(encoded.examples) == 20
    assert encoded.shortened == 0
    for example in encoded.examples:
        assert example.ids[-1] == example.labels[-1] == tokenizer.eos_token_id
        assert len(example.ids) == len(example.labels)
        assert all(label in (IGNORED, token) for token, label in zip(example.ids, example.labels, strict=True))


def test_the_labelled_part_is_the_completion_and_eos(tokenizer: Any) -> None:
    some = rows(20, words=30)
    some.append(with_text(rewrite_prompt="Schreib es als Ode an Zürich – «großartig» 🌊 naïve."))
    for row, example in zip(some, encode(PROBLEM, some, tokenizer, LONG, "completion").examples, strict=True):
        assert tokenizer.decode(labelled(example)) == PROBLEM.completion(row) + tokenizer.eos_token
        start = len(example.ids) - len(labelled(example))
        assert set(example.labels[:start]) == {IGNORED}
        assert tokenizer.decode(example.ids[:start]) == PROBLEM.prompt(row)


def test_loss_on_all_labels_the_prompt_too(tokenizer: Any) -> None:
    some = rows(3)
    whole, half = (encode(PROBLEM, some, tokenizer, LONG, loss_on).examples for loss_on in ("all", "completion"))
    assert [e.ids for e in whole] == [e.ids for e in half]
    assert all(e.labels == e.ids for e in whole)
    assert all(0 < len(labelled(e)) < len(e.ids) for e in half)


def test_an_empty_completion_still_trains_eos(tokenizer: Any) -> None:
    silent = replace(PROBLEM, completion=lambda row: "")
    (example,) = encode(silent, rows(1), tokenizer, LONG, "completion").examples
    assert labelled(example) == [tokenizer.eos_token_id]


@pytest.mark.parametrize("max_tokens", [180, 256, 400])
def test_too_long_rows_are_cut_in_the_source_and_counted(tokenizer: Any, max_tokens: int) -> None:
    long, short = rows(6, words=60), rows(3, words=2)
    long = [{**row, "original_text": row["original_text"] * 4} for row in long]
    short = [{**row, "original_text": "One.", "rewritten_text": "Two."} for row in short]
    encoded = encode(PROBLEM, [*long, *short], tokenizer, max_tokens, "completion")
    assert encoded.shortened == len(long)
    for row, example in zip([*long, *short], encoded.examples, strict=True):
        assert len(example.ids) <= max_tokens
        assert tokenizer.decode(labelled(example)) == PROBLEM.completion(row) + tokenizer.eos_token
    for row, example in zip(long, encoded.examples, strict=False):
        seen = tokenizer.decode(example.ids)
        assert seen.startswith(f"Original text:\n{row['original_text'].split()[0]}")
        assert "The most likely prompt" in seen, "the question after the source is not cut away"
        assert len(example.ids) > 0.5 * max_tokens, "no more is cut than must be"


def test_a_very_long_source_is_cut_however_long_it_is(tokenizer: Any) -> None:
    row = with_text(original_text="word " * 20_000, rewritten_text="WORD " * 20_000, rewrite_prompt="Shout.")
    encoded = encode(PROBLEM, [row], tokenizer, 256, "completion")
    assert encoded.shortened == 1
    assert len(encoded.examples[0].ids) <= 256


def test_an_answer_that_cannot_fit_is_an_error(tokenizer: Any) -> None:
    row = with_text(rewrite_prompt="Tell it backwards, and then once more. " * 20)
    with pytest.raises(
        ReseedError, match=f"none of 1 rows fits into 128; row {row['id']}: .*raise training.max_tokens"
    ):
        encode(PROBLEM, [row], tokenizer, 128, "completion")
    with pytest.raises(ReseedError, match=r"raise training\.max_tokens"):
        fit(PROBLEM, rows(1)[0], tokenizer, 16)  # less than the question alone takes


@pytest.mark.parametrize("too_long", ["shorten", "drop"])
def test_rows_that_do_not_fit_are_dropped_and_counted(tokenizer: Any, too_long: str) -> None:
    fits = [{**row, "original_text": "One.", "rewritten_text": "Two."} for row in rows(3)]
    cut = [{**row, "original_text": row["original_text"] * 30} for row in rows(2)]
    answer = with_text(rewrite_prompt="Tell it backwards, and then once more. " * 20)
    encoded = encode(PROBLEM, [answer, *fits, *cut], tokenizer, 256, "completion", too_long=too_long)
    kept = [*fits, *cut] if too_long == "shorten" else fits
    assert (encoded.shortened, encoded.dropped) == ((2, 1) if too_long == "shorten" else (0, 3))
    assert len(encoded.examples) == len(kept)
    for row, example in zip(kept, encoded.examples, strict=True):
        assert len(example.ids) <= 256
        assert tokenizer.decode(labelled(example)) == PROBLEM.completion(row) + tokenizer.eos_token, "never cut"


def test_when_every_row_is_too_long_to_keep(tokenizer: Any) -> None:
    long = [{**row, "original_text": row["original_text"] * 30} for row in rows(2)]
    with pytest.raises(ReseedError, match=r"none of 2 rows fits into 256; row .*set training.too_long: shorten"):
        encode(PROBLEM, long, tokenizer, 256, "completion", too_long="drop")


def test_a_weighted_row_labels_all_and_knows_its_prompt(tokenizer: Any) -> None:
    some = rows(3)
    weighted, half = (
        encode(PROBLEM, some, tokenizer, LONG, loss_on).examples for loss_on in ("weighted", "completion")
    )
    for example, other in zip(weighted, half, strict=True):
        assert example.labels == example.ids == other.ids
        assert example.prompt == other.prompt == other.labels.count(IGNORED)


def test_one_bos_where_the_tokenizer_begins_with_bos(tokenizer: Any, begun: Any) -> None:
    some = rows(4)
    plain = encode(PROBLEM, some, tokenizer, LONG, "completion").examples
    bos = encode(PROBLEM, some, begun, LONG, "completion").examples
    for without, example in zip(plain, bos, strict=True):
        assert example.ids == (begun.bos_token_id, *without.ids)
        assert example.ids.count(begun.bos_token_id) == 1
        assert labelled(example) == labelled(without)


def test_prompt_ids_follow_the_tokenizer(tokenizer: Any, begun: Any) -> None:
    assert prompt_ids(begun, "text") == [begun.bos_token_id, *prompt_ids(tokenizer, "text")]


def test_a_text_may_be_cut_from_its_beginning(tokenizer: Any) -> None:
    """Where `keep` is 0 such a cut is no cut at all: `[-0:]` is the whole text."""

    def ends(row: Row, keep: float) -> Row:
        return {**row, "original_text": row["original_text"][-int(len(row["original_text"]) * keep) :]}

    problem, row = replace(PROBLEM, shorten=ends), with_text(original_text="the sea lay still " * 40)
    least = len(prompt_ids(tokenizer, PROBLEM.prompt({**row, "original_text": "still"})))
    short, ids = fit(problem, row, tokenizer, least + 10)
    assert len(ids) <= least + 10
    assert row["original_text"].endswith(short["original_text"])
    assert 0 < len(short["original_text"]) < len(row["original_text"])


def test_a_row_that_nothing_shortens_is_given_up_soon(tokenizer: Any) -> None:
    asked: list[float] = []

    def whole(row: Row, keep: float) -> Row:
        asked.append(keep)
        return row

    with pytest.raises(TooLongError, match="even with the source text cut away"):
        fit(replace(PROBLEM, shorten=whole), with_text(original_text="the sea " * 200), tokenizer, 50)
    assert len(asked) < 30
