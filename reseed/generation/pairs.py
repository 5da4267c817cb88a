"""What a generator is asked: pairs of a passage and a prompt, drawn evenly."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from pathlib import Path

from reseed.files import digest
from reseed.records import ReseedError
from reseed.settings import RECIPES, GenerationSettings


@dataclass(frozen=True)
class Pair:
    """A passage that a generator shall rewrite as a prompt says."""

    id: str
    source: str
    instruction: str


def seed_texts(settings: GenerationSettings) -> tuple[list[str], list[str]]:
    """The passages and the prompts, one a line, blank lines between them ignored."""
    return read_lines(settings.passages, "generation.passages"), read_lines(settings.prompts, "generation.prompts")


def read_lines(given: str, key: str) -> list[str]:
    """The lines of a text file that say something; a shipped file is found beside the recipes."""
    path = next((p for p in (Path(given), RECIPES / given) if p.is_file()), None)
    if path is None:
        raise ReseedError(f"{key}: no file '{given}' here or in {RECIPES.name}/")
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except UnicodeDecodeError as error:
        raise ReseedError(f"{key}: '{given}' is not UTF-8 text ({error}); save it in UTF-8, one text a line") from error
    return list(dict.fromkeys(line for line in lines if line))


def draw_pairs(settings: GenerationSettings) -> list[Pair]:
    """`rows` different pairs: every prompt about equally often, every passage about equally often."""
    passages, prompts = seed_texts(settings)
    if settings.rows > len(passages) * len(prompts):
        raise ReseedError(
            f"generation.rows: {settings.rows} pairs were asked for, {len(passages)} passages × {len(prompts)} prompts "
            f"make {len(passages) * len(prompts)}"
        )
    generator = random.Random(settings.seed)
    generator.shuffle(prompts)
    generator.shuffle(passages)
    turn = math.lcm(len(passages), len(prompts))  # both lists repeat together; a step aside makes the pairs new again
    chosen = [
        (passages[(index + index // turn) % len(passages)], prompts[index % len(prompts)])
        for index in range(settings.rows)
    ]
    return [Pair(digest(pair, 16), *pair) for pair in chosen]
