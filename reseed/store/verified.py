"""Whether files are still what was written: their SHA-256 is compared when a process first reads them.

Hashing runs at about 1 GB/s a core, so an artifact takes less than a second and every process hashes it. A large
model (90 GB) would take each process a minute and a half, so the model cache remembers the size and time of hashed
files, and hashes them again only if those changed. `reseed doctor --verify` hashes everything.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path

from reseed.files import file_digest, write_atomically
from reseed.records import ReseedError

Stamp = tuple[int, int]
"""Size, and time of the last change in nanoseconds."""

STAMPS = "reseed-verified.json"
CHECKSUMS = "reseed-checksums.txt"
_HASHED: set[tuple[int, int, Stamp, str]] = set()  # disk, inode, stamp and SHA-256 of what this process hashed


def stamp(path: Path) -> Stamp:
    """What changes when a file is written to: its size and time."""
    state = path.stat()
    return state.st_size, state.st_mtime_ns


def faults(folder: Path, files: Mapping[str, tuple[int, str]], anew: bool = False) -> list[str]:
    """What is wrong with the files below `folder`, a line each; `files` has the size and SHA-256 of every path.

    A link is refused even if it leads to the right bytes: the owner of its target could change them after they were
    compared. So is an unlisted file, since a loader may take it for a part of the whole.
    """
    lines = [
        f"{path}: {wrong}"
        for path, (size, sha256) in files.items()
        if (wrong := fault(folder, path, size, sha256, anew))
    ]
    return lines + strangers(folder, files)


def strangers(folder: Path, listed: Collection[str]) -> list[str]:
    """The unlisted files below `folder`, a line each, except for a file system's own."""
    there = [path for path in folder.rglob("*") if not path.is_dir() or path.is_symlink()]
    names = {path.relative_to(folder).as_posix() for path in there if not path.name.startswith(".")}
    return [f"{name}: does not belong here" for name in sorted(names.difference(listed))]


def fault(folder: Path, path: str, size: int, sha256: str, anew: bool = False) -> str | None:
    """What is wrong with one file, None if it is whole. `anew` hashes it even if this process already has."""
    file = folder / path
    if any(one.is_symlink() for one in (file, *file.parents[: path.count("/")])):
        return "is a link; wanted the file itself"
    if not file.is_file():
        return "is missing"
    state = file.stat()
    if state.st_size != size:
        return f"has {state.st_size} bytes, wanted {size}"
    known = (state.st_dev, state.st_ino, stamp(file), sha256)  # a folder that is renamed keeps them
    if not anew and known in _HASHED:
        return None
    if (seen := file_digest(file)) != sha256:
        return f"its SHA-256 is {seen[:12]}…, wanted {sha256[:12]}…"
    _HASHED.add(known)
    return None


def check_model(folder: Path, whole: bool = False) -> None:
    """Compare a model in the cache with the checksums written with it. Raises ReseedError if they differ.

    Files whose size and time are those of the last comparison are not hashed again, unless `whole`.
    """
    lines = model_faults(folder, whole)
    if lines:
        raise ReseedError(
            f"model {folder.name}: {'; '.join(lines)}; remove {folder} and start again: it is fetched anew"
        )


def model_faults(folder: Path, whole: bool = False) -> list[str]:
    """What is wrong with a model in the cache, a line for each file; nothing if it has no checksums."""
    sums = model_sums(folder)
    if sums is None:
        return []
    if not sums:
        return [f"{CHECKSUMS}: is empty or damaged"]
    before = {} if whole else read_stamps(folder)
    lines = []
    now: dict[str, Stamp] = {}
    for path, sha256 in sums.items():
        file = folder / path
        if not file.is_file():
            lines.append(f"{path}: is missing")
            continue
        now[path] = stamp(file)
        if before.get(path) != now[path] and (wrong := fault(folder, path, now[path][0], sha256, anew=whole)):
            lines.append(f"{path}: {wrong}")
            del now[path]
    if now != before:
        write_stamps(folder, now)
    return lines + strangers(folder, {*sums, CHECKSUMS, STAMPS})


def model_sums(folder: Path) -> dict[str, str] | None:
    """Path → SHA-256, as written with the folder: empty if that list is damaged or cut off, None for a folder from before
    there were lists.
    """
    try:
        text = (folder / CHECKSUMS).read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except UnicodeDecodeError:
        return {}
    lines = [re.fullmatch(r"([0-9a-f]{64})  (.+)", line) for line in text.removesuffix("\n").split("\n")]
    whole = text.endswith("\n") and all(lines)
    return {line[2]: line[1] for line in lines if line is not None} if whole else {}


def read_stamps(folder: Path) -> dict[str, Stamp]:
    """The stamps of the last comparison; empty if they cannot be read."""
    with suppress(OSError, ValueError, TypeError, AttributeError):
        found = json.loads((folder / STAMPS).read_text(encoding="utf-8"))
        return {str(path): (int(size), int(time)) for path, (size, time) in found.items()}
    return {}


def write_stamps(folder: Path, stamps: Mapping[str, Stamp]) -> None:
    """Remember the stamps, if the folder may be written; else every process compares anew."""
    if os.access(folder, os.W_OK):
        with suppress(OSError):
            write_atomically(folder / STAMPS, json.dumps(stamps, indent=1).encode())
