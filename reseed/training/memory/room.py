"""The memory that training has: that of one card, and that of this machine."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from reseed.recipe.profile import Profile, cluster_address
from reseed.records import ReseedError

LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")  # of a container

DEVICES = ("/dev/nvidia0", "/dev/nvidiactl", "/dev/kfd", "/dev/dxg")  # a card may be there without nvidia-smi


@dataclass(frozen=True)
class Room:
    """Bytes, and where they are known from. None: not known."""

    card: int | None
    host: int | None
    card_from: str = ""


def room_of(profile: Profile) -> Room:
    """What a member's workers have. The profile must state another machine's cards: Ray knows their number, not their size."""
    here, pool = runs_here(profile), profile.training
    host = memory_here() if here else None
    if not pool.gpus:
        return Room(None, host)
    part = min(1.0, pool.gpus)  # workers may share a card
    if here and (cards := cards_here()):
        return Room(int(min(cards) * part), host, "this machine's card")
    if pool.gpu_memory_gib is None:
        return Room(None, host)
    return Room(int(pool.gpu_memory_gib * 2**30 * part), host, f"profile '{profile.name}', training.gpu_memory_gib")


def runs_here(profile: Profile) -> bool:
    """True when the flow starts Ray itself, on this machine."""
    return cluster_address(profile) is None


def refuse_workers(profile: Profile) -> None:
    """Raise ReseedError if a local Ray could never give one member's workers what they need."""
    need, cpus, cards = profile.training, profile.cpus or os.cpu_count() or 1, len(cards_here())
    no_card = not cards and not any(Path(device).exists() for device in DEVICES)
    if runs_here(profile) and (need.workers * need.cpus > cpus or (need.gpus and no_card)):
        plural = "s" if need.workers > 1 else ""
        raise ReseedError(
            f"training: profile '{profile.name}' wants {need.workers} worker{plural} of {need.cpus} CPU and {need.gpus:g} GPU "
            f"each, and this machine has {cpus} CPU and {cards} GPU; lower profile.training.workers or .cpus, choose "
            "--profile laptop, or name a Ray cluster with RAY_ADDRESS"
        )


@cache
def cards_here() -> tuple[int, ...]:
    """Bytes of each card, from the driver's own tool: torch would take seconds to import."""
    command = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ()
    return tuple(int(line) * 2**20 for line in said.split() if line.isdigit())


@cache
def memory_here() -> int:
    """Bytes of the machine, or the limit of its container."""
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limits = [Path(path).read_text().strip() for path in LIMITS if Path(path).is_file()]
    return min([whole, *(int(limit) for limit in limits if limit.isdigit())])
