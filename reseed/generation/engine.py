"""What turns prompts into text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from reseed.records import Generation, Prompt, Sampling


class Engine(Protocol):
    """A loaded model that continues prompts. Answers come in the order of the prompts and carry their ids."""

    def generate(
        self, prompts: Sequence[Prompt], sampling: Sampling, seed: int, adapter: Path | None = None
    ) -> list[Generation]:
        """One answer a prompt; equal prompts, sampling and seed give equal answers on the same machine."""
        ...
