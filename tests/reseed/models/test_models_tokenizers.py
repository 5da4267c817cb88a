"""Tokenizers that can stop: pad is not EOS, and no embedding is resized for it."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny import save_tokenizer
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import AutoTokenizer, LlamaConfig, PreTrainedTokenizerFast

from reseed.models.tokenizers import load_tokenizer
from reseed.records import ReseedError


def save_words(folder: Path, words: list[str], **special: str) -> Path:
    """A tokenizer that knows `words` and nothing else."""
    vocabulary = {word: index for index, word in enumerate(words)}
    PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel(vocabulary)), **special).save_pretrained(folder)
    return folder


def test_a_pad_token_that_is_eos_is_replaced(tiny_model: Path) -> None:
    packaged = AutoTokenizer.from_pretrained(tiny_model)
    assert packaged.pad_token_id == packaged.eos_token_id, "as packaged; the trap that this is about"
    tokenizer = load_tokenizer(tiny_model)
    assert tokenizer.pad_token == "<|endoftext|>"
    assert tokenizer.pad_token_id not in (None, tokenizer.eos_token_id, tokenizer.bos_token_id)
    assert tokenizer.eos_token_id == packaged.eos_token_id


def test_nothing_is_resized(tiny_model: Path) -> None:
    tokenizer = load_tokenizer(tiny_model)
    assert len(tokenizer) == len(AutoTokenizer.from_pretrained(tiny_model))
    assert len(tokenizer) <= LlamaConfig.from_pretrained(tiny_model).vocab_size
    assert tokenizer.pad_token_id < len(tokenizer)


def test_a_good_pad_token_stays(tmp_path: Path) -> None:
    save_tokenizer(tmp_path, pad_is_eos=False)
    assert load_tokenizer(tmp_path).pad_token == "<|endoftext|>"
    own = save_words(tmp_path / "own", ["a", "</s>", "~"], eos_token="</s>", pad_token="~")
    assert load_tokenizer(own).pad_token == "~"


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["a", "<s>", "</s>", "<unk>", "<pad>"], "<pad>"),
        (["a", "<s>", "</s>", "<unk>"], "<unk>"),
        (
            ["a", "<s>", "</s>", "<|finetune_right_pad_id|>", "<|reserved_special_token_0|>"],
            "<|finetune_right_pad_id|>",
        ),
        (
            ["a", "<s>", "</s>", "<|reserved_special_token_1|>", "<|reserved_special_token_0|>"],
            "<|reserved_special_token_1|>",
        ),
    ],
)
def test_a_missing_pad_token_is_found_in_the_vocabulary(tmp_path: Path, words: list[str], wanted: str) -> None:
    save_words(tmp_path, words, bos_token="<s>", eos_token="</s>")
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.pad_token == wanted
    assert tokenizer.pad_token_id == words.index(wanted)
    assert len(tokenizer) == len(words)


def test_a_word_that_speaks_of_reserving_is_no_pad_token(tmp_path: Path) -> None:
    save_words(tmp_path, ["reserved", "Ġunreserved", "<s>", "</s>"], bos_token="<s>", eos_token="</s>")
    with pytest.raises(ReseedError, match="no token of its vocabulary can pad"):
        load_tokenizer(tmp_path)


def test_without_a_token_that_can_pad_it_is_refused(tmp_path: Path) -> None:
    save_words(tmp_path, ["a", "b", "<s>", "</s>"], bos_token="<s>", eos_token="</s>")
    with pytest.raises(ReseedError, match=r"no token of its vocabulary can pad.*add a <pad> token"):
        load_tokenizer(tmp_path)


def test_without_eos_it_is_refused(tmp_path: Path) -> None:
    save_words(tmp_path / "endless", ["a", "<pad>"], pad_token="<pad>")
    with pytest.raises(ReseedError, match="tokenizer of endless: it has no EOS token"):
        load_tokenizer(tmp_path / "endless")


def test_a_folder_without_tokenizer_is_an_error_of_ours(tmp_path: Path) -> None:
    (tmp_path / "bare").mkdir()
    with pytest.raises(ReseedError, match="tokenizer of bare: it cannot be loaded"):
        load_tokenizer(tmp_path / "bare")
