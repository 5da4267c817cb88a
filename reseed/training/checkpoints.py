"""Which run a checkpoint belongs to, and whether it is whole: only the run that wrote it may resume from it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from fnmatch import fnmatchcase
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reseed.files import digest, file_digest
from reseed.records import ReseedError, Row

if TYPE_CHECKING:
    from reseed.training.job import TrainJob

ORIGIN = "origin.json"
SUMS = "sums-{}.json"  # size and SHA-256 of one node's files, numbered by its first rank
TAIL = 65_536  # bytes at the end of a weight file that identify it: hashing a hundred gigabytes would take minutes
Origin = dict[str, Any]
"""Everything that shapes a run, under the names that a user knows."""


def origin_of(
    job: TrainJob, folder: Path, rows: Sequence[Row], validation: Sequence[Row], start: Path | None = None
) -> Origin:
    """The origin of `job` with the model in `folder`, trained on `rows` from the adapter in `start`. It holds no paths."""
    return {
        "workers": job.world,
        "micro_batch_size": job.micro_batch_size,
        "deepspeed": job.deepspeed,
        "seed": job.seed,
        **({"order": job.order} if job.order is not None else {}),
        "model": weights_digest(folder),
        **{
            f"model.{name}": value
            for name, value in job.model.model_dump(exclude={"name", "upcycle", "engine"}).items()
        },
        "start": weights_digest(start / "adapter") if start is not None else None,
        "rows": digest([row["id"] for row in rows]),
        "validation": digest([row["id"] for row in validation]),
        "judge": digest(repr(job.judge)),
        **{
            f"training.{name}": value
            for name, value in job.settings.model_dump(mode="json", exclude={"start_from"}).items()
        },
    }


def weights_digest(folder: Path) -> str:
    """A digest of the configuration, and of the size and last bytes of every weight file."""
    parts = []
    for path in sorted(p for p in folder.iterdir() if p.name == "config.json" or p.suffix in (".safetensors", ".bin")):
        size = path.stat().st_size
        with path.open("rb") as file:
            file.seek(max(0, size - TAIL))
            parts.append((path.name, size, sha256(file.read()).hexdigest()))
    return digest(parts)


def check_origin(checkpoint: Path, own: Origin) -> None:
    """Refuse a checkpoint that lacks a file, or is of another run than `own`."""
    try:
        found = json.loads((checkpoint / ORIGIN).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ReseedError(f"training: the checkpoint has no readable {ORIGIN}; remove it and begin anew") from error
    if found["workers"] != own["workers"]:  # each one's shard is its own (DeepSpeed#3810)
        raise ReseedError(
            f"training: the checkpoint is of {found['workers']} workers and cannot be resumed with {own['workers']}; set the "
            f"profile's training.workers to {found['workers']}, or begin anew"
        )
    other = [name for name in sorted(found.keys() | own.keys()) if found.get(name) != own.get(name)]
    if other:
        seen = "; ".join(f"{name} was {found.get(name)!r} and is {own.get(name)!r}" for name in other)
        raise ReseedError(f"training: the checkpoint is another run's: {seen}; set them back, or begin anew")
    missing = [name for name in required_files(own) if not list((checkpoint / "state").glob(name))]
    if missing:
        raise ReseedError(f"training: the checkpoint lacks {missing[0]}; remove it and begin anew")


def required_files(own: Origin) -> list[str]:
    """Patterns of the files without which a run cannot resume: with DeepSpeed, each rank has its own."""
    ranks = range(own["workers"])
    random_states = [f"rng_state_{rank}.pth" for rank in ranks] if own["workers"] > 1 else ["rng_state.pth"]
    if not own["deepspeed"]:
        return ["optimizer.pt", *random_states]
    return [*(f"global_step*/*zero_pp_rank_{rank}_mp_rank_00_optim_states.pt" for rank in ranks), *random_states]


def prepare_work(work: Path, own: Origin, checkpoint: Path | None) -> None:
    """Write the origin, and the parts of the checkpoint to resume from, into a node's fresh work folder."""
    work.mkdir(parents=True, exist_ok=True)
    (work / ORIGIN).write_text(json.dumps(own, indent=1, sort_keys=True), encoding="utf-8")
    if checkpoint is not None:
        shutil.copytree(checkpoint / "best", work / "best", dirs_exist_ok=True)
        shutil.copytree(checkpoint / "state", work / "checkpoint-resumed", dirs_exist_ok=True)


def assemble_checkpoint(work: Path, step: int, rank: int) -> Path:
    """Put what the Trainer saved at a step, the best adapter so far and the origin into one folder, and return it.

    `rank` is the node's first. Only rank 0's node adds the best adapter: on the others it is that of the checkpoint they
    resumed from, and could overwrite the newest when the nodes' parts are merged.
    """
    whole = work / f"whole-{step}"
    whole.mkdir()
    shutil.copy(work / ORIGIN, whole)
    if rank == 0 and (work / "best").is_dir():
        shutil.copytree(work / "best", whole / "best")
    (work / f"checkpoint-{step}").rename(whole / "state")
    sums = {name: [path.stat().st_size, file_digest(path)] for name, path in files_of(whole).items()}
    (whole / SUMS.format(rank)).write_text(json.dumps(sums, indent=1, sort_keys=True), encoding="utf-8")
    return whole


def files_of(folder: Path) -> dict[str, Path]:
    """All files below a folder, by their relative names."""
    return {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}


def damage_of(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint's files, or None if they are as they were written.

    This finds accidents only: whoever can write there can write the sums too, so reading it must never run code.
    """
    found = files_of(checkpoint)
    wanted: dict[str, list[Any]] = {}
    sums = [name for name in found if fnmatchcase(name, SUMS.format("*"))]
    if not sums:
        return f"it has no {SUMS.format(0)}"
    for name in sums:
        try:
            wanted |= json.loads(found.pop(name).read_text(encoding="utf-8"))
        except ValueError:
            return f"{name} is not JSON"
    if other := sorted(found.keys() ^ wanted.keys()):
        return f"{other[0]} {'is missing' if other[0] in wanted else 'does not belong to it'}"
    for name, (size, digest_wanted) in wanted.items():
        if (seen := found[name].stat().st_size) != size:
            return f"{name} has {seen} bytes, not {size}"
        if file_digest(found[name]) != digest_wanted:
            return f"{name} has another SHA-256 than when it was written"
    return None
