"""A lease in the store: one holder, taken over when it is dead, by the waiting one's own clock."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from reseed.store import lease as leases
from reseed.store.artifacts import ArtifactStore
from reseed.store.lease import (
    Claim,
    Lease,
    Place,
    claim_of,
    discard,
    holder_of,
    is_gone,
    lease_path,
    start_ticks,
    this_place,
)

SOON = 0.8  # seconds that these leases last; ten beats, since a machine under load stops for a while


def lease(store: ArtifactStore) -> Lease:
    return Lease(store, "member", SOON, SOON / 10)


def until(true: Callable[[], bool], seconds: float = 60) -> float:
    """Wait for it as a second driver does; the seconds it took."""
    begin = time.monotonic()
    while not true():
        assert time.monotonic() - begin < seconds, "waited in vain"
        time.sleep(SOON / 20)
    return time.monotonic() - begin


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Makes all that happens from then on happen on another machine, from where no process can be looked at."""

    def move() -> None:
        place = Place(kernel="another machine's", process=1, started="1")
        monkeypatch.setattr(leases, "this_place", lambda: place)

    return move


def test_one_of_many_takes_it_and_gives_it_back(store: ArtifactStore) -> None:
    with ThreadPoolExecutor(8) as pool:
        taken = [one for one, got in pool.map(lambda one: (one, one.take()), [lease(store) for _ in range(8)]) if got]
    (mine,) = taken
    assert holder_of(store, "member") == mine.holder
    second = lease(store)
    with mine.keep():
        assert not second.take()
        assert f"process {this_place().process}, since 20" in second.describe()
        end = time.monotonic() + 1.5 * SOON
        while time.monotonic() < end:  # it lasts for as long as it is kept, not for as long as a lease
            assert not second.looks_free()
            time.sleep(SOON / 20)
        assert not mine.lost.is_set()
    assert second.looks_free()
    assert holder_of(store, "member") == ""
    assert second.take()
    discard(store, "member")
    assert not second.is_there()


def test_a_silent_holder_of_another_machine_is_dead_after_a_while(
    store: ArtifactStore, elsewhere: Callable[[], None]
) -> None:
    silent, second, third = lease(store), lease(store), lease(store)
    assert silent.take()
    elsewhere()
    assert not third.looks_free()
    time.sleep(1.2 * SOON)
    assert not third.looks_free(), "nobody looked meanwhile: the store may have been away, for its holder too"
    assert until(second.looks_free) > SOON * 0.9
    assert second.take()
    assert holder_of(store, "member") == second.holder
    until(third.looks_free)  # nobody keeps it
    with silent.keep():
        until(silent.lost.is_set)
    assert holder_of(store, "member") == second.holder, "who lost it does not give it back"


def test_it_outlasts_a_store_that_is_away(store: ArtifactStore, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = lease(store)
    assert mine.take()

    def away(*_: object) -> bool:
        raise OSError("no route to host")

    with mine.keep():
        with monkeypatch.context() as patch:
            patch.setattr(store.objects, "swap", away)
            time.sleep(1.5 * SOON)
        before = store.objects.read(lease_path("member"))
        until(lambda: store.objects.read(lease_path("member")) != before)
        assert not mine.lost.is_set()


def test_it_outlasts_an_answer_that_was_lost(store: ArtifactStore, monkeypatch: pytest.MonkeyPatch) -> None:
    mine, swap, lost = lease(store), store.objects.swap, []
    assert mine.take()

    def swap_and_break(path: str, old: bytes, new: bytes) -> bool:
        done = swap(path, old, new)
        if not lost:
            lost.append(new)
            raise OSError("the connection broke")
        return done

    monkeypatch.setattr(store.objects, "swap", swap_and_break)
    with mine.keep():
        until(lambda: bool(lost) and store.objects.read(lease_path("member")) != lost[0])
        assert not mine.lost.is_set()
        assert holder_of(store, "member") == mine.holder
    assert holder_of(store, "member") == "", "it was given back"


def test_a_dead_process_of_this_machine_is_gone_at_once(store: ArtifactStore) -> None:
    code = (
        "import sys; from reseed.store.lease import Lease; from reseed.store.artifacts import ArtifactStore\n"
        "assert Lease(ArtifactStore(sys.argv[1]), 'member').take(); print('taken', flush=True); sys.stdin.read()"
    )
    url = store.url if not store.local else store.root
    process = subprocess.Popen(
        [sys.executable, "-c", code, url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "taken\n"
    second = Lease(store, "member")  # of a minute
    assert not second.take()
    process.kill()
    until(second.looks_free, 10)  # a zombie is dead, too
    process.communicate()
    assert second.take()
    assert not Lease(store, "member").take()


def test_whose_end_can_be_known() -> None:
    here = this_place()
    assert not is_gone(here)
    assert start_ticks(here.process) == here.started
    assert is_gone(here.model_copy(update={"started": "1"})), "another process has its number now"
    assert not is_gone(here.model_copy(update={"started": "1", "kernel": "another machine's"}))
    assert not is_gone(here.model_copy(update={"started": "1", "kernel": ""}))


@pytest.mark.parametrize("text", [b"", b"{", b'{"holder": "a", "place": {"process": -1}}'])
def test_a_damaged_one_is_nobody_s(store: ArtifactStore, text: bytes) -> None:
    assert store.objects.create(lease_path("member"), text)
    assert claim_of(text) is None
    mine = lease(store)
    assert mine.take()
    claim = claim_of(store.objects.read(lease_path("member")))
    assert isinstance(claim, Claim)
    assert claim.holder == mine.holder


def test_every_taking_has_a_holder_of_its_own(store: ArtifactStore) -> None:
    """Workers of an earlier one must not take themselves for the holder's."""
    mine = lease(store)
    assert mine.take()
    first = mine.holder
    with mine.keep():
        pass
    assert mine.take()
    assert mine.holder != first
