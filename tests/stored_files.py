"""Files of every kind that the store keeps, and how a test changes one."""

from __future__ import annotations

import os
from pathlib import Path

from plain_step import plain_step

from reseed.records import Artifact
from reseed.store.step import Step

FILES = {
    "rows.jsonl": b'{"id": "1"}\n',
    "adapter/config.json": b"{}",
    "adapter/deep/weights.safetensors": bytes(range(256)) * 40,
}
WEIGHTS = "adapter/deep/weights.safetensors"
OTHER = FILES[WEIGHTS][::-1]  # of the same size


def step(name: str = "one", seed: int | None = 0, **spec: object) -> Step:
    return plain_step(
        "train", 1, "adapter", name, {"rank": 8, **spec}, {"rows": Artifact("rows", "source", "abc123")}, seed
    )


def folder_with(place: Path, files: dict[str, bytes]) -> Path:
    for path, content in files.items():
        (place / path).parent.mkdir(parents=True, exist_ok=True)
        (place / path).write_bytes(content)
    place.mkdir(parents=True, exist_ok=True)
    return place


def change(file: Path, time_too: bool) -> None:
    before = file.stat()
    file.write_bytes(OTHER)
    if time_too:
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def build(scratch: Path) -> None:
    folder_with(scratch, FILES)
