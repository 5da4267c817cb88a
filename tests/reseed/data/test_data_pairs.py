from __future__ import annotations

import math
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reseed.generation.pairs import draw_pairs
from reseed.records import ReseedError
from reseed.settings import GenerationSettings

ROOT = Path(__file__).resolve().parents[3]


def texts(folder: Path, passages: int, prompts: int, rows: int, seed: int = 0) -> GenerationSettings:
    """Settings over files of that many lines."""
    for name, count in (("passages", passages), ("prompts", prompts)):
        (folder / f"{name}.txt").write_text("".join(f"{name} {number}\n" for number in range(count)))
    return GenerationSettings(
        passages=str(folder / "passages.txt"), prompts=str(folder / "prompts.txt"), rows=rows, seed=seed
    )


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(1, 13), st.integers(1, 13), st.floats(0, 1), st.integers(0, 3))
def test_pairs_are_different_and_even(tmp_path: Path, passages: int, prompts: int, share: float, seed: int) -> None:
    rows = max(1, int(share * passages * prompts))
    pairs = draw_pairs(texts(tmp_path, passages, prompts, rows, seed))
    assert len({(pair.source, pair.instruction) for pair in pairs}) == len({pair.id for pair in pairs}) == rows
    for column, count in (("source", passages), ("instruction", prompts)):
        times = Counter(getattr(pair, column) for pair in pairs)
        assert len(times) == min(rows, count)
        assert max(times.values()) <= math.ceil(rows / count) + 1
        assert rows < count or min(times.values()) >= rows // count - 1


def test_shipped_texts_are_all_used() -> None:
    pairs = draw_pairs(GenerationSettings(rows=256))
    passages, prompts = (Counter(getattr(pair, column) for pair in pairs) for column in ("source", "instruction"))
    assert len(passages) >= 60
    assert len(prompts) >= 50
    assert max(passages.values()) - min(passages.values()) <= 1
    assert max(prompts.values()) - min(prompts.values()) <= 1


def test_every_pair_can_be_drawn(tmp_path: Path) -> None:
    assert len({pair.id for pair in draw_pairs(texts(tmp_path, 6, 4, 24))}) == 24


def test_more_pairs_than_there_are_is_told(tmp_path: Path) -> None:
    with pytest.raises(ReseedError, match=r"generation\.rows: 25 pairs were asked for, 6 passages × 4 prompts make 24"):
        draw_pairs(texts(tmp_path, 6, 4, 25))


def test_seed_decides(tmp_path: Path) -> None:
    drawn = [[pair.id for pair in draw_pairs(texts(tmp_path, 9, 7, 20, seed))] for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1]
    assert drawn[0] != drawn[2]


def test_pairs_are_the_same_in_every_process() -> None:
    code = (
        "from reseed.generation.pairs import draw_pairs; from reseed.settings import GenerationSettings;"
        "print([pair.id for pair in draw_pairs(GenerationSettings(rows=100, seed=5))])"
    )
    told = [
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed}, cwd=ROOT, check=True, capture_output=True, text=True,
        ).stdout.strip()
        for seed in ("1", "2")
    ]  # fmt: skip
    here = str([pair.id for pair in draw_pairs(GenerationSettings(rows=100, seed=5))])
    assert told == [here, here]
