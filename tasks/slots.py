"""How many members train at once: as many as the cluster has room for."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from reseed.recipe.profile import Profile
from reseed.records import ReseedError
from tasks.waiting import wait_until

_slots: dict[int, threading.BoundedSemaphore] = {}
_slots_lock = threading.Lock()


@contextmanager
def training_slot(profile: Profile) -> Iterator[None]:
    """Wait until the cluster has room for one more member; one that does not fit would only wait inside Ray."""
    import ray

    need = profile.training
    resources = ray.cluster_resources()
    room = [int(resources.get("CPU", 0) // (need.workers * need.cpus))]
    if need.gpus:
        room.append(int(resources.get("GPU", 0) // (need.workers * need.gpus)))
    if min(room) < 1:
        raise ReseedError(
            f"training: {need.workers} workers of {need.cpus} CPU and {need.gpus} GPU each do not fit into this Ray with "
            f"{resources.get('CPU', 0):.0f} CPU and {resources.get('GPU', 0):.0f} GPU; lower the profile's training section"
        )
    with _slots_lock:
        slot = _slots.setdefault(min(room), threading.BoundedSemaphore(min(room)))
    wait_until(lambda: slot.acquire(blocking=False))
    try:
        yield
    finally:
        slot.release()
