from __future__ import annotations

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from reseed.files import create_file


def test_of_many_that_create_a_file_one_does_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda n: create_file(path, b"%d" % n * 1000), range(32)))
    assert sum(made) == 1
    assert path.read_bytes() == b"%d" % made.index(True) * 1000
    assert [one.name for one in path.parent.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("mode", "umask", "seen"), [(0o600, 0o022, 0o600), (0o600, 0o077, 0o600), (0o666, 0o027, 0o640)]
)
def test_mode_of_a_created_file(tmp_path: Path, mode: int, umask: int, seen: int) -> None:
    before = os.umask(umask)
    try:
        assert create_file(tmp_path / "file", b"x", mode)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == seen
