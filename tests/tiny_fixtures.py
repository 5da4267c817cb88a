"""Fixtures of tests that run tiny models; the conftest of a folder imports those that it wants."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tiny import save_model


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Equal bits need an equal number of threads; and tiny tensors gain nothing from more, a shared machine loses much."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny dense Llama with its tokenizer; nobody writes into it."""
    return save_model(tmp_path_factory.mktemp("models") / "tiny")
