"""A lease in the store: who works on a thing now, for all machines that share the store, taken over when they die.

It is one object that its holder rewrites every few seconds. Clocks of two machines differ, so no time of day in it is
compared: whoever waits measures, by their own clock, for how long the content has not changed. A holder on the same
machine whose process is gone is dead at once. A holder that was stopped for long and wakes up finds another's content;
until it looks it may still work, so whoever writes into what the lease protects asks `holder_of` first.
"""

from __future__ import annotations

import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from reseed.records import ReseedError
from reseed.store.artifacts import ArtifactStore
from reseed.store.errors import explained

SECONDS = 60.0  # without a change, and the holder is dead
BEAT = 10.0  # seconds between two changes; looking on, a gap longer than this does not count: the store was away
CHANGES = 3  # tries to change what is ours, each from the content that was seen last
PARTING = 5.0  # seconds for giving it back: a store that does not answer must not hold up the end of a flow


class LeaseLostError(ReseedError):
    """Another holder has taken the lease over."""


class Place(BaseModel):
    """One process among all machines'. Containers of one machine have process numbers of their own."""

    model_config = ConfigDict(frozen=True)
    kernel: str  # of which boot, and which space of process numbers; empty where it cannot be told
    process: int = Field(gt=0, lt=1 << 31)
    started: str


class Claim(BaseModel):
    """What the object says. `change` makes every content another one."""

    model_config = ConfigDict(frozen=True)
    holder: str  # of one taking, by one thread; empty: it was given back
    who: str
    since: str
    place: Place
    change: str

    def content(self) -> bytes:
        """As it is stored."""
        return self.model_copy(update={"change": uuid.uuid4().hex}).model_dump_json().encode()


class Lease:
    """One thread's view of the lease `name`. It is taken with `take`, and kept while the block of `kept` runs."""

    def __init__(self, store: ArtifactStore, name: str, seconds: float = SECONDS, beat: float = BEAT) -> None:
        self.store, self.name, self.seconds, self.beat = store, name, seconds, beat
        self.holder, self.lost = "", threading.Event()
        self._content = b""  # the last one of ours
        self._seen: bytes | None = None  # the last one of another holder, which has stood for `_stood` seconds
        self._stood = self._looked = 0.0

    def take(self) -> bool:
        """Take the lease if nobody holds it, or whoever does is dead; do not wait."""
        seen = self._look()
        if not self.is_free():
            return False
        self.holder = uuid.uuid4().hex
        claim = Claim(
            holder=self.holder, who=f"{socket.gethostname()}, process {os.getpid()}",
            since=datetime.now(UTC).isoformat(timespec="seconds"), place=this_place(), change="",
        )  # fmt: skip
        self._content = claim.content()
        with explained(self.store.url):
            objects, path = self.store.objects, lease_path(self.name)
            taken = objects.create(path, self._content) if seen is None else objects.swap(path, seen, self._content)
        # a file system that lost its own answer finds the object there already
        if taken or self._look() == self._content:
            self.lost.clear()
            return True
        return False

    def is_free(self) -> bool:
        """What the last look showed: nobody's, or a dead holder's."""
        claim = claim_of(self._seen)
        return claim is None or not claim.holder or self._stood > self.seconds or is_gone(claim.place)

    def looks_free(self) -> bool:
        """Look, without taking it. Who waits does so every second or two: between looks nothing is known."""
        self._look()
        return self.is_free()

    def is_there(self) -> bool:
        """True when anybody ever took it and it was not removed."""
        return self._look() is not None

    def is_silent(self) -> bool:
        """True when, by the store's own clock, it was not changed for as long as a dead holder's: for who looks once.

        A holder that only cannot reach the store is silent, too: ask where nobody needs what the lease protects.
        """
        place = f"scratch/leases/{self.name}/{uuid.uuid4().hex}"
        objects, changed, root = self.store.objects, self.store.fs.modified, self.store.root
        with explained(self.store.url):
            objects.create(f"{place}/now", b"now")
            try:
                silence = changed(f"{root}/{place}/now") - changed(f"{root}/{lease_path(self.name)}")
            except FileNotFoundError:  # somebody else has removed it
                return False
            finally:
                objects.remove(place)
        return bool(silence.total_seconds() > self.seconds + self.beat)

    def told(self) -> str:
        """Who holds it and since when, as of the last look."""
        claim = claim_of(self._seen)
        return f"{claim.who}, since {claim.since}" if claim is not None else "nobody"

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Change the content again and again while the block runs, and give the lease back at its end."""
        ended = threading.Event()
        thread = threading.Thread(target=self._keep, args=(ended,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join(PARTING)

    def _keep(self, ended: threading.Event) -> None:
        """A store that is away for long loses nothing: it is away for those who wait, too."""
        while not ended.wait(self.beat) and not self.lost.is_set():
            with suppress(Exception):
                if not self._change(self.holder):
                    self.lost.set()
        with suppress(Exception):  # it is found to be dead later
            self._change("")

    def _change(self, holder: str) -> bool:
        """Rewrite the object, or say False because it is not ours any more."""
        objects, path = self.store.objects, lease_path(self.name)
        for _ in range(CHANGES):
            claim = claim_of(self._content)
            assert claim is not None
            content = claim.model_copy(update={"holder": holder}).content()
            if objects.swap(path, self._content, content):
                self._content = content
                return True
            # a swap whose answer was lost, this one or an earlier one, has happened all the same
            seen = objects.read(path)
            if seen == content:
                self._content = content
                return True
            found = claim_of(seen)
            if seen is None or found is None or found.holder != self.holder:
                return False
            self._content = seen
        return True  # ours, although it could not be changed now

    def _look(self) -> bytes | None:
        """The content now; counts for how long it has stood, as far as we looked."""
        with explained(self.store.url):
            content = self.store.objects.read(lease_path(self.name))
        now = time.monotonic()
        if content != self._seen:
            self._seen, self._stood = content, 0.0
        else:
            self._stood += min(now - self._looked, self.beat) if self._looked else 0.0
        self._looked = now
        return content


def lease_path(name: str) -> str:
    """Where the lease is, in a folder of its own, below the store's root."""
    return f"scratch/leases/{name}/lease.json"


def holder_of(store: ArtifactStore, name: str) -> str:
    """Ask the store whose the lease is now; empty when it is nobody's."""
    with explained(store.url):
        claim = claim_of(store.objects.read(lease_path(name)))
    return claim.holder if claim is not None else ""


def discard(store: ArtifactStore, name: str) -> None:
    """Remove a lease, whoever has it: only when nobody who takes it finds anything left to do."""
    store.discard_scratch(f"leases/{name}")


def claim_of(content: bytes | None) -> Claim | None:
    """What a lease's object says; damaged or missing, nobody holds it."""
    with suppress(ValidationError):
        return Claim.model_validate_json(content) if content is not None else None
    return None


def this_place() -> Place:
    """This process."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        kernel = f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:  # not Linux
        kernel = ""
    return Place(kernel=kernel, process=os.getpid(), started=start_of(os.getpid()) or "")


def is_gone(place: Place) -> bool:
    """True when the process was on this machine and has ended; False too where that cannot be told from here."""
    if not place.kernel or place.kernel != this_place().kernel:
        return False
    try:
        os.kill(place.process, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False  # somebody else's
    return start_of(place.process) != place.started


def start_of(process: int) -> str | None:
    """When a process started, in ticks since the boot; None for one that is dead and not yet waited for, or unknown."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]
