"""A lease in the store says who works on a thing now, to all machines that share the store; a dead holder's can be taken.

It is one object that its holder rewrites every few seconds. Two machines' clocks differ, so no time of day in it is
compared: a waiting process measures by its own clock how long the content has not changed. A holder on the same
machine whose process is gone is dead at once. A holder that wakes up after a long stop finds another's content;
until it looks it may go on working, so ask `holder_of` before writing into what the lease protects.
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

SECONDS = 60.0  # without a change, after which the holder counts as dead
BEAT = 10.0  # seconds between two changes; a waiting process counts no more than this between two looks
CHANGES = 3  # tries to change our own lease, each from the content that was seen last
PARTING = 5.0  # seconds for giving it back: a store that does not answer must not delay the end of a flow


class LeaseLostError(ReseedError):
    """Another holder has taken the lease."""


class Place(BaseModel):
    """Identifies a process among all machines and containers, which number their processes independently."""

    model_config = ConfigDict(frozen=True)
    kernel: str  # boot id and pid namespace; empty where they are unknown
    process: int = Field(gt=0, lt=1 << 31)
    started: str


class Claim(BaseModel):
    """The content of the lease's object. `change` is a nonce that makes every content different."""

    model_config = ConfigDict(frozen=True)
    holder: str  # one thread that took it once; empty: given back
    who: str
    since: str
    place: Place
    change: str

    def content(self) -> bytes:
        """The bytes to store, with a new nonce."""
        return self.model_copy(update={"change": uuid.uuid4().hex}).model_dump_json().encode()


class Lease:
    """One thread's view of the lease `name`. `take` takes it; `keep` keeps it while a block runs."""

    def __init__(self, store: ArtifactStore, name: str, seconds: float = SECONDS, beat: float = BEAT) -> None:
        self.store, self.name, self.seconds, self.beat = store, name, seconds, beat
        self.holder, self.lost = "", threading.Event()
        self._content = b""  # that we wrote last
        self._seen: bytes | None = None  # that we saw last, unchanged for `_stood` seconds
        self._stood = self._looked = 0.0

    def take(self) -> bool:
        """Take the lease if nobody holds it or the holder is dead; do not wait."""
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
        # if the answer was lost and the request repeated, it fails although the object is ours
        if taken or self._look() == self._content:
            self.lost.clear()
            return True
        return False

    def is_free(self) -> bool:
        """True if the last look showed no holder, or a dead one."""
        claim = claim_of(self._seen)
        return claim is None or not claim.holder or self._stood > self.seconds or is_gone(claim.place)

    def looks_free(self) -> bool:
        """Look without taking it. Call it every second or two while waiting: nothing is known between looks."""
        self._look()
        return self.is_free()

    def is_there(self) -> bool:
        """True if the lease's object exists: somebody took it once, and it was not removed."""
        return self._look() is not None

    def is_silent(self) -> bool:
        """True if, by the store's own clock, it has been unchanged for as long as a dead holder's. One look is enough.

        A holder that cannot reach the store is silent too: ask only where nobody needs what the lease protects any more.
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

    def describe(self) -> str:
        """Say who holds it and since when, as of the last look."""
        claim = claim_of(self._seen)
        return f"{claim.who}, since {claim.since}" if claim is not None else "nobody"

    @contextmanager
    def keep(self) -> Iterator[None]:
        """Renew the lease while the block runs, and give it back at the end."""
        ended = threading.Event()
        thread = threading.Thread(target=self._keep, args=(ended,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join(PARTING)

    def _keep(self, ended: threading.Event) -> None:
        """Renew until the end. If the store is unreachable, nothing is lost: it is for those who wait, too."""
        while not ended.wait(self.beat) and not self.lost.is_set():
            with suppress(Exception):
                if not self._change(self.holder):
                    self.lost.set()
        with suppress(Exception):  # others will find it dead
            self._change("")

    def _change(self, holder: str) -> bool:
        """Rewrite the object; False if it is not ours any more."""
        objects, path = self.store.objects, lease_path(self.name)
        for _ in range(CHANGES):
            claim = claim_of(self._content)
            assert claim is not None
            content = claim.model_copy(update={"holder": holder}).content()
            if objects.swap(path, self._content, content):
                self._content = content
                return True
            # a swap whose answer was lost, this one or an earlier one, may still have happened
            seen = objects.read(path)
            if seen == content:
                self._content = content
                return True
            found = claim_of(seen)
            if seen is None or found is None or found.holder != self.holder:
                return False
            self._content = seen
        return True  # still ours, although it could not be changed now

    def _look(self) -> bytes | None:
        """Read the content, and count for how long it has not changed."""
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
    """The lease's path below the store's root, in a folder of its own."""
    return f"scratch/leases/{name}/lease.json"


def holder_of(store: ArtifactStore, name: str) -> str:
    """Ask the store who holds the lease now; empty if nobody does."""
    with explained(store.url):
        claim = claim_of(store.objects.read(lease_path(name)))
    return claim.holder if claim is not None else ""


def discard(store: ArtifactStore, name: str) -> None:
    """Remove a lease, whoever holds it. Only safe when the work that it protects is done."""
    store.discard_scratch(f"leases/{name}")


def claim_of(content: bytes | None) -> Claim | None:
    """The claim in a lease's object; None if that is damaged or missing, so that nobody holds it."""
    with suppress(ValidationError):
        return Claim.model_validate_json(content) if content is not None else None
    return None


def this_place() -> Place:
    """The identity of this process."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        kernel = f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:  # not Linux
        kernel = ""
    return Place(kernel=kernel, process=os.getpid(), started=start_ticks(os.getpid()) or "")


def is_gone(place: Place) -> bool:
    """True if the process was on this machine and has ended; False if that cannot be known from here."""
    if not place.kernel or place.kernel != this_place().kernel:
        return False
    try:
        os.kill(place.process, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False  # it is another user's
    return start_ticks(place.process) != place.started


def start_ticks(process: int) -> str | None:
    """When a process started, in ticks since boot; None if it is dead, a zombie or unknown."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]
