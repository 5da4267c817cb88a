"""The artifact store's promises, on a local folder and on a real S3 server, with the same test bodies."""

from __future__ import annotations

import hashlib
import io
import json
import multiprocessing
import os
import pickle
import random
import signal
import subprocess
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import TypeVar

import pytest
from s3_server import SECRET_KEY, Fault, faulty_proxy, forget_clients
from stored_files import FILES, folder_with, step

import reseed.store.objects
from reseed.files import locked
from reseed.records import Artifact, ReseedError
from reseed.store.artifacts import ArtifactStore
from reseed.store.manifest import Manifest, listed_files
from reseed.store.objects import LocalObjects
from reseed.store.patience import Patience
from reseed.store.provenance import git_commit, is_pickle
from reseed.store.verified import faults

WRITERS = 16
T = TypeVar("T")


def many_files(writer: int, count: int = 12, size: int = 20_000) -> dict[str, bytes]:
    """Different bytes from every writer, so that a mixture of two would show."""
    return {f"part-{n:02d}/data.bin": f"{writer}:{n};".encode() * (size // 6) for n in range(count)}


def stored(store: ArtifactStore, below: str) -> set[str]:
    """Every path that is really in the store, locks and S3's folder markers left out."""
    place = f"{store.root}/{below}"
    found = store.fs.find(place) if store.fs.exists(place) else []
    found = [path for path in found if path != place and not path.endswith((".lock", "/"))]
    return {path.removeprefix(f"{store.root}/") for path in found}


def assert_whole(store: ArtifactStore, manifest: Manifest) -> None:
    """Every file that the manifest names is in the store, in its size and with its digest."""
    assert manifest.files
    for file in manifest.files:
        content = store.objects.read(f"{manifest.place}/{file.path}")
        assert content is not None, f"{manifest.place}/{file.path} is missing"
        assert (len(content), hashlib.sha256(content).hexdigest()) == (file.size, file.sha256)


def assert_one_attempt(store: ArtifactStore, artifact: Artifact) -> Manifest:
    """The store holds one manifest, the files that it names, and nothing else."""
    manifest = store.manifest(artifact)
    assert_whole(store, manifest)
    named = {f"{manifest.place}/{file.path}" for file in manifest.files}
    assert stored(store, artifact.path) == named | {f"{artifact.path}/manifest.json"}
    return manifest


def together(count: int, act: Callable[[int], T]) -> list[T]:
    """Call `act` in threads that start at the same moment."""
    barrier = threading.Barrier(count)

    def one(number: int) -> T:
        barrier.wait()
        return act(number)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(one, range(count)))


def processes() -> ForkServerContext:
    """Processes that start fast and share no thread or connection with this one."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["reseed.store.artifacts", "s3fs"])
    return context


def started(target: Callable[..., None], *arguments: object) -> ForkServerProcess:
    process = processes().Process(target=in_child, args=(dict(os.environ), target, *arguments), daemon=True)
    process.start()
    return process


def in_child(environment: dict[str, str], target: Callable[..., None], *arguments: object) -> None:
    os.environ.update(environment)
    target(*arguments)


# What is written is what is read


def test_write_find_fetch(store: ArtifactStore, tmp_path: Path) -> None:
    work = step()
    assert store.find(work.artifact) is None
    written = store.write(work, folder_with(tmp_path / "work", FILES), {"loss": 0.5}, 12.3456)
    assert written == work.artifact
    fetched = store.fetch(written)
    found = {path.relative_to(fetched).as_posix(): path.read_bytes() for path in fetched.rglob("*") if path.is_file()}
    assert found == FILES
    assert store.fetch(written) == fetched
    assert_one_attempt(store, written)


def test_manifest_tells_the_lineage(store: ArtifactStore, tmp_path: Path) -> None:
    work = step(seed=7, method="qlora")
    manifest = store.manifest(store.write(work, folder_with(tmp_path / "work", FILES), {"loss": 0.5}, 12.3456))
    assert {file.path: (file.size, file.sha256) for file in manifest.files} == {
        path: (len(content), hashlib.sha256(content).hexdigest()) for path, content in FILES.items()
    }
    assert manifest.inputs == {"rows": "rows/source/abc123"}
    assert (manifest.spec, manifest.seed, manifest.metrics) == ({"rank": 8, "method": "qlora"}, 7, {"loss": 0.5})
    assert (manifest.verb, manifest.version, manifest.seconds) == ("train", 1, 12.346)
    assert {"reseed", "torch", "numpy"} <= set(manifest.packages)
    assert manifest.git_commit == git_commit()
    assert manifest.artifact == work.artifact


def test_processes_see_what_others_wrote(store: ArtifactStore, tmp_path: Path) -> None:
    folder = folder_with(tmp_path / "work", FILES)
    artifact = store.write(step(), folder)
    assert pickle.loads(pickle.dumps(store)).manifest(artifact) == store.manifest(artifact)
    store.point("adapter", "one", "latest", artifact)
    assert len(store.list("adapter")) == len(store.refs("adapter", "one")) == 1
    child = started(fetch_and_write_in_child, store.url, artifact, folder)
    child.join(60)
    assert child.exitcode == 0
    assert len(store.list("adapter")) == 2, "the listing from before is not remembered"
    assert store.refs("adapter", "one") == {"latest": step("other").artifact}
    assert store.move_ref("adapter", "one", "latest", artifact, store.ref("adapter", "one", "latest")) is True


def fetch_and_write_in_child(url: str, artifact: Artifact, folder: Path) -> None:
    store = ArtifactStore(url)
    assert (store.fetch(artifact) / "rows.jsonl").read_bytes() == FILES["rows.jsonl"]
    store.point("adapter", "one", "latest", store.write(step("other"), folder))


def test_artifact_of_metrics_alone(store: ArtifactStore, tmp_path: Path) -> None:
    artifact = store.write(step(), folder_with(tmp_path / "work", {}), {"score": 1.0})
    assert list(store.fetch(artifact).iterdir()) == []
    with pytest.raises(NotADirectoryError):
        store.write(step("other"), tmp_path / "not there")


def test_unknown_artifact(store: ArtifactStore) -> None:
    unknown = Artifact("adapter", "one", "nothing")
    assert store.find(unknown) is None
    for read in (store.manifest, store.fetch):
        with pytest.raises(ReseedError, match="there is no adapter/one/nothing; run the step that makes it"):
            read(unknown)
    assert store.list("adapter") == []
    assert store.refs("adapter", "one") == {}
    assert store.ref("adapter", "one", "latest") is None


def test_list_is_oldest_first(store: ArtifactStore, tmp_path: Path) -> None:
    folder = folder_with(tmp_path / "work", FILES)
    order = [("b", 3), ("a", 1), ("b", 1), ("a", 2), ("b", 2)]
    written = [store.write(step(name, seed), folder) for name, seed in order]
    assert [m.artifact for m in store.list("adapter")] == written
    assert [m.seed for m in store.list("adapter", "b")] == [3, 1, 2]
    assert store.list("adapter", "a-longer-name") == store.list("rows") == []


@pytest.mark.parametrize("name", ["../up", "a/b", "", ".hidden", "st*r", "[ab]", "new\nline"])
def test_names_that_lead_elsewhere_are_refused(tmp_path: Path, name: str) -> None:
    store = ArtifactStore(str(tmp_path / "store"))
    for call in (lambda: store.find(Artifact("adapter", name, "key")), lambda: store.refs("adapter", name)):
        with pytest.raises(ReseedError, match="cannot be a kind, name, key or ref"):
            call()
    with pytest.raises(ReseedError, match="'refs' cannot be a kind"):
        store.list("refs")


# What is never in the store


def test_no_secret_and_no_absolute_path(store: ArtifactStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_SERVICE_API_KEY", "sk-1234567890abcdef")
    model = folder_with(tmp_path / "my-model", FILES)
    work = step(
        model={"name": str(model), "cache": "~/models/x", "url": "https://me:hunter2@host/x"},
        constants=["/no_think", "/r/books is a place", "say sk-1234567890abcdef", "a/b\n/tmp/x"],
    )
    artifact = store.write(work, model, {"where": [str(model), model]})
    manifest = store.manifest(artifact)
    assert manifest.spec["model"] == {"name": "…/my-model", "cache": "…/x", "url": "https://***@host/x"}
    assert manifest.spec["constants"] == ["/no_think", "/r/books is a place", "say ***", "a/b\n/tmp/x"]
    assert manifest.metrics == {"where": ["…/my-model", "…/my-model"]}
    raw = store.objects.read(f"{artifact.path}/manifest.json") or b""
    for forbidden in (str(tmp_path), str(Path.home()) + "/", "sk-1234567890abcdef", "hunter2", SECRET_KEY):
        assert forbidden.encode() not in raw


def torch_like() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", b"x")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("training_args.bin", torch_like()),
        ("rows.bin", pickle.dumps([1])),
        ("old.bin", pickle.dumps([1], 2)),
        ("m.pt", b"x"),
    ],
)
def test_pickles_are_refused(store: ArtifactStore, tmp_path: Path, name: str, content: bytes) -> None:
    with pytest.raises(ReseedError, match=f"sub/{name}: a pickle"):
        store.write(step(), folder_with(tmp_path / "work", {f"sub/{name}": content, **FILES}))
    assert stored(store, "adapter") == set()


def test_other_binaries_are_no_pickles(tmp_path: Path) -> None:
    header = (0x280).to_bytes(8, "little")  # the first bytes of this safetensors file are those of a pickle
    plain = io.BytesIO()
    with zipfile.ZipFile(plain, "w") as archive:
        archive.writestr("a.txt", "x")
    files = {
        "a.safetensors": header + b"{}.",
        "b.bin": header + b".",
        "c.zip": plain.getvalue(),
        "d.txt": b"",
        "e.json": b"{}",
    }
    assert not any(map(is_pickle, folder_with(tmp_path, files).iterdir()))


def test_git_commit(tmp_path: Path) -> None:
    file = tmp_path / "code.py"
    file.write_text("one")
    git = ["git", "-C", str(tmp_path), "-c", "user.name=t", "-c", "user.email=t@example.org"]
    assert git_commit(file) is None

    def after(*commands: list[str]) -> str | None:
        for command in commands:
            subprocess.run([*git, *command], check=True, capture_output=True)
        git_commit.cache_clear()
        return git_commit(file)

    clean = after(["init"], ["add", "code.py"], ["commit", "-m", "one"])
    assert clean is not None
    assert len(clean) == 40
    file.write_text("two")
    assert after() == f"{clean}+"
    assert git_commit(tmp_path / "installed_below_but_untracked.py") is None


# Two writers


def test_same_step_twice_keeps_the_first(store: ArtifactStore, tmp_path: Path) -> None:
    store.write(step(), folder_with(tmp_path / "first", {"rows.jsonl": b"first"}))
    first = assert_one_attempt(store, step().artifact)
    artifact = store.write(step(), folder_with(tmp_path / "second", {"rows.jsonl": b"second", "more": b"x"}))
    assert assert_one_attempt(store, artifact) == first
    assert (store.fetch(artifact) / "rows.jsonl").read_bytes() == b"first"


def test_sixteen_threads_write_one_key(store: ArtifactStore, tmp_path: Path) -> None:
    folders = [folder_with(tmp_path / f"writer-{n}", many_files(n, 4)) for n in range(WRITERS)]
    artifacts = together(WRITERS, lambda n: store.write(step(), folders[n]))
    assert artifacts == [step().artifact] * WRITERS
    manifest = assert_one_attempt(store, step().artifact)
    contents = [path.read_bytes() for path in sorted(store.fetch(step().artifact).rglob("*.bin"))]
    assert contents in [list(many_files(n, 4).values()) for n in range(WRITERS)]
    places = together(WRITERS, lambda _: store.fetch(step().artifact))
    assert set(places) == {store.fetch(step().artifact)}
    assert together(WRITERS, lambda _: ArtifactStore(store.url).manifest(step().artifact)) == [manifest] * WRITERS


def write_in_child(url: str, folder: Path, name: str, go_at: float) -> None:
    store = ArtifactStore(url)
    time.sleep(max(0.0, go_at - time.time()))
    store.write(step(name), folder)


def test_sixteen_processes_write_one_key(tmp_path: Path) -> None:
    store = ArtifactStore(str(tmp_path / "store"))
    folders = [folder_with(tmp_path / f"writer-{n}", many_files(n)) for n in range(WRITERS)]
    go_at = time.time() + 2
    writers = [started(write_in_child, store.url, folder, "one", go_at) for folder in folders]
    for writer in writers:
        writer.join(60)
    assert [writer.exitcode for writer in writers] == [0] * WRITERS
    assert_one_attempt(store, step().artifact)


def test_reader_never_sees_half_an_artifact(store: ArtifactStore, tmp_path: Path) -> None:
    """Two writers race for one key after another, while two readers check all that the store shows of it."""
    folders = [folder_with(tmp_path / f"writer-{n}", many_files(n, 5)) for n in range(2)]
    checks, names, done = [0, 0], ["key-0"], threading.Event()

    def read(reader: int) -> None:
        while not done.is_set():
            name = names[-1]
            found = [*store.list("adapter", name), store.find(step(name).artifact)]
            for manifest in filter(None, found):
                assert_whole(store, manifest)
                checks[reader] += 1

    def write(writer: int) -> None:
        store.write(step(names[-1]), folders[writer])

    with ThreadPoolExecutor(2) as pool:
        readers = [pool.submit(read, number) for number in range(2)]
        try:
            while len(names) < 5 or (min(checks) < 5 and len(names) < 60):
                together(2, write)
                names.append(f"key-{len(names)}")
        finally:
            done.set()
        for reader in readers:
            reader.result()
    assert min(checks) > 0
    for name in names[:-1]:
        assert_one_attempt(store, step(name).artifact)


@pytest.mark.slow
def test_writer_killed_at_any_moment(store: ArtifactStore, tmp_path: Path) -> None:
    folder = folder_with(tmp_path / "work", many_files(1, 40))
    times = []
    for number in range(4):
        start = time.monotonic()
        store.write(step(f"measure-{number}"), folder)
        times.append(time.monotonic() - start)
    whole = min(times)  # a disk that is busy for a moment would have every writer killed too late
    chance = random.Random(0)
    unfinished = 0
    for round_number in range(8):
        name = f"round-{round_number}"
        writer = started(write_in_child, store.url, folder, name, 0.0)
        while writer.is_alive() and not stored(store, f"adapter/{name}"):
            time.sleep(0.001)
        time.sleep(whole * (round_number + chance.random()) / 8)  # one moment in each eighth
        writer.kill()
        writer.join()
        found = store.find(step(name).artifact)
        unfinished += found is None
        if found is not None:
            assert_whole(store, found)
        artifact = store.write(step(name), folder)
        assert_whole(store, store.manifest(artifact))
        assert sum(path.stat().st_size for path in store.fetch(artifact).rglob("*.bin")) == sum(
            map(len, many_files(1, 40).values())
        )
    assert unfinished > 0, "no writer was killed before it finished: the test says nothing"


SOON = Patience(connect=1, silence=1, refused=2, total=2.5)  # where no answer comes at all
LATER = Patience(connect=10, silence=3, refused=20, total=100)  # where one does, on a machine that has much to do
ONCE = Patience(connect=10, silence=20, refused=20, total=41)


def through(fault: Fault, store: ArtifactStore, act: Callable[[ArtifactStore], T], patience: Patience = LATER) -> T:
    """Call `act` with a client whose requests meet a fault on their way."""
    with faulty_proxy(os.environ["AWS_ENDPOINT_URL"], fault) as proxy, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", proxy.address)
        forget_clients()
        try:
            return act(ArtifactStore(store.url, patience))
        finally:
            forget_clients()


def test_put_whose_answer_is_lost(s3_store: ArtifactStore, tmp_path: Path) -> None:
    """The client repeats the put, and the repetition is told that the object is there: the writer won all the same."""
    folder = folder_with(tmp_path / "work", FILES)
    lost = Fault("deaf", "PUT", "/manifest.json", times=1)
    artifact = through(lost, s3_store, lambda store: store.write(step(), folder))
    assert_one_attempt(s3_store, artifact)
    for target in (artifact, Artifact("adapter", "one", "other")):
        now = s3_store.ref("adapter", "one", "latest")
        move = partial(ArtifactStore.move_ref, kind="adapter", name="one", ref="latest", artifact=target, expected=now)
        assert through(Fault("deaf", "PUT", "/latest.json", times=1), s3_store, move) is True
        assert s3_store.refs("adapter", "one") == {"latest": target}


def test_put_whose_answer_never_comes(s3_store: ArtifactStore, tmp_path: Path) -> None:
    """The writer cannot know that its manifest was created, and must not take the files away from it."""
    folder = folder_with(tmp_path / "work", FILES)
    lost = Fault("deaf", "PUT", "/manifest.json")
    told = message_of(lambda: through(lost, s3_store, lambda store: store.write(step(), folder), ONCE))
    assert "AWS_ENDPOINT_URL and the network" in told
    assert_one_attempt(s3_store, step().artifact)


# Movable names


def test_refs_move_by_compare_and_swap(store: ArtifactStore) -> None:
    a, b, c = (Artifact("dataset", "prompts", key) for key in "abc")
    assert store.move_ref("dataset", "prompts", "latest", a, None) is True
    assert store.move_ref("dataset", "prompts", "latest", b, None) is False
    first = store.ref("dataset", "prompts", "latest")
    assert first is not None
    assert first.artifact == a
    assert store.move_ref("dataset", "prompts", "latest", b, first) is True
    assert store.move_ref("dataset", "prompts", "latest", c, first) is False
    store.point("dataset", "prompts", "latest", a)
    assert store.move_ref("dataset", "prompts", "latest", c, first) is False, "back at a, but not the same move"
    store.point("dataset", "prompts", "2026.11.20", c)
    assert store.refs("dataset", "prompts") == {"latest": a, "2026.11.20": c}
    assert store.move_ref("dataset", "prompts", "gone", c, first) is False


def test_a_mover_that_is_stopped_does_not_hold_up_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    objects = LocalObjects(str(tmp_path))
    assert objects.create("one.json", b"old")
    monkeypatch.setattr(reseed.store.objects, "SWAP_SECONDS", 0.1)
    with locked(tmp_path / "one.lock"):
        assert not objects.swap("one.json", b"old", b"new")
    assert objects.read("one.json") == b"old"
    assert objects.swap("one.json", b"old", b"new")


def test_of_sixteen_movers_one_wins(store: ArtifactStore) -> None:
    for round_number in range(3):
        expected = store.ref("dataset", "prompts", "latest")
        targets = [Artifact("dataset", "prompts", f"{round_number}-{n}") for n in range(WRITERS)]
        moves = [partial(store.move_ref, "dataset", "prompts", "latest", target, expected) for target in targets]
        won = together(WRITERS, partial(nth, moves))
        assert sum(map(bool, won)) == 1
        assert store.refs("dataset", "prompts") == {"latest": targets[won.index(True)]}


def nth(calls: Sequence[Callable[[], T]], number: int) -> T:
    return calls[number]()


def test_point_moves_whoever_else_moves(store: ArtifactStore) -> None:
    targets = [Artifact("dataset", "prompts", str(n)) for n in range(4)]
    together(4, lambda n: store.point("dataset", "prompts", "latest", targets[n]))
    assert store.refs("dataset", "prompts")["latest"] in targets


# Damage


def test_truncated_manifest_and_ref(store: ArtifactStore, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    artifact = store.write(step(), folder_with(tmp_path / "work", FILES))
    store.point("adapter", "one", "latest", artifact)
    for path in (f"{artifact.path}/manifest.json", "refs/adapter/one/latest.json"):
        content = store.objects.read(path) or b""
        store.fs.pipe_file(f"{store.root}/{path}", content[: len(content) // 2])
    work = tmp_path / "work"
    for call in (
        store.find,
        store.manifest,
        store.fetch,
        lambda given: store.find_many([given]),
        lambda _: store.write(step(), work),
    ):
        with pytest.raises(ReseedError, match=r"manifest\.json is damaged; remove it to run the step again"):
            call(artifact)
    with pytest.raises(ReseedError, match=r"latest\.json is damaged"):
        store.ref("adapter", "one", "latest")
    assert store.list("adapter") == []
    assert store.find_many([artifact], listing=True) == {}
    assert store.refs("adapter", "one") == {}
    assert len(caplog.messages) == 3
    assert all("is damaged; remove it" in message for message in caplog.messages)


def test_an_empty_manifest_hides_no_other(
    store: ArtifactStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = store.write(step("other"), folder_with(tmp_path / "work", FILES))
    assert store.objects.create("adapter/one/abc/manifest.json", b"")
    assert [manifest.artifact for manifest in store.list("adapter")] == [other]
    assert "adapter/one/abc/manifest.json is damaged; remove it to run the step again" in caplog.text


def test_names_and_keys_are_listed_without_reading(store: ArtifactStore, tmp_path: Path) -> None:
    folder = folder_with(tmp_path / "work", FILES)
    written = [store.write(step(name, seed), folder) for name, seed in (("a", 1), ("b", 1), ("b", 2))]
    assert store.objects.create("adapter/b/unfinished/abc/rows.jsonl", b"")
    store.point("adapter", "b", "latest", written[1])
    assert store.names("adapter") == ["a", "b"]
    assert store.keys("adapter", "b") == sorted([written[1].key, written[2].key, "unfinished"])
    assert store.keys("adapter", "b", written[2].key[:9]) == [written[2].key]
    assert store.ref_names("adapter") == ["b"]
    assert store.names("rows") == store.keys("adapter", "c") == store.ref_names("rows") == []
    asked = [*written, Artifact("adapter", "b", "unfinished")]
    assert store.find_many(asked) == {artifact: store.manifest(artifact) for artifact in written}
    assert store.finished(asked) == set(written)
    for number in range(9):  # so many that they are listed
        assert store.objects.create(f"adapter/b/{number}/manifest.json", b"")
    asked += [Artifact("adapter", "b", str(number)) for number in range(18)]
    assert store.finished(asked) == {*written, *asked[4:13]}
    assert store.finished([]) == set()


def test_files_that_are_gone(store: ArtifactStore, tmp_path: Path) -> None:
    artifact = store.write(step(), folder_with(tmp_path / "work", FILES))
    store.fs.rm(f"{store.root}/{store.manifest(artifact).place}/rows.jsonl")
    with pytest.raises(ReseedError, match=r"adapter/one/"):
        store.fetch(artifact)
    assert cached_files(tmp_path) == []


def cached_files(tmp_path: Path) -> list[Path]:
    """What is in the cache of copies, hidden folders too."""
    return [path for path in (tmp_path / "cache" / "artifacts").rglob("*") if path.is_file()]


def test_fetch_verifies_what_it_copied(s3_store: ArtifactStore, tmp_path: Path) -> None:
    artifact = s3_store.write(step(), folder_with(tmp_path / "work", FILES))
    path = f"{s3_store.root}/{s3_store.manifest(artifact).place}/rows.jsonl"
    s3_store.fs.pipe_file(path, FILES["rows.jsonl"].replace(b"1", b"2"))
    with pytest.raises(ReseedError, match=r"rows\.jsonl: its SHA-256 is"):
        s3_store.fetch(artifact)
    assert cached_files(tmp_path) == []
    s3_store.fs.pipe_file(path, FILES["rows.jsonl"])
    assert (s3_store.fetch(artifact) / "rows.jsonl").read_bytes() == FILES["rows.jsonl"]


def test_copy_that_was_cut_is_fetched_again(s3_store: ArtifactStore, tmp_path: Path) -> None:
    artifact = s3_store.write(step(), folder_with(tmp_path / "work", FILES))
    (s3_store.fetch(artifact) / "rows.jsonl").write_bytes(b"")
    assert (s3_store.fetch(artifact) / "rows.jsonl").read_bytes() == FILES["rows.jsonl"]


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_interrupted_download_leaves_nothing(s3_store: ArtifactStore, tmp_path: Path, how: signal.Signals) -> None:
    artifact = s3_store.write(step(), folder_with(tmp_path / "work", many_files(0, 60)))
    reader = started(fetch_quietly, s3_store.url, artifact)
    while reader.is_alive() and len(cached_files(tmp_path)) < 5:
        time.sleep(0.001)
    os.kill(reader.pid or 0, how)
    reader.join(30)
    assert reader.exitcode == (-signal.SIGKILL if how == signal.SIGKILL else 3)
    place = tmp_path / "cache" / "artifacts"
    assert not list(place.glob(f"*/{s3_store.manifest(artifact).place}")), "half a copy must not look like one"
    assert how == signal.SIGKILL or cached_files(tmp_path) == []
    assert faults(s3_store.fetch(artifact), listed_files(s3_store.manifest(artifact).files)) == []
    assert len(cached_files(tmp_path)) == 60, "what the killed reader left is gone"


def fetch_quietly(url: str, artifact: Artifact) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs start with SIGINT ignored
    try:
        ArtifactStore(url).fetch(artifact)
    except KeyboardInterrupt:
        os._exit(3)


# What the world does


@pytest.fixture
def with_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Change the environment for clients that are made afterwards."""

    def change(**values: str | None) -> None:
        for name, value in values.items():
            monkeypatch.delenv(name) if value is None else monkeypatch.setenv(name, value)
        forget_clients()

    yield change
    forget_clients()


def every_call(store: ArtifactStore, folder: Path) -> list[Callable[[], object]]:
    artifact = step().artifact
    return [
        lambda: store.find(artifact),
        lambda: store.fetch(artifact),
        lambda: store.list("adapter"),
        lambda: store.write(step(), folder),
        lambda: store.ref("adapter", "one", "latest"),
        lambda: store.refs("adapter", "one"),
        lambda: store.move_ref("adapter", "one", "latest", artifact, None),
        lambda: store.point("adapter", "one", "latest", artifact),
    ]


def message_of(call: Callable[[], object]) -> str:
    with pytest.raises(ReseedError) as caught:
        call()
    assert SECRET_KEY not in str(caught.value)
    assert "wrong-secret" not in str(caught.value)
    return str(caught.value)


WRONG: dict[str, dict[str, str | None]] = {
    "secret": {"AWS_SECRET_ACCESS_KEY": "wrong-secret-1234567"},
    "key": {"AWS_ACCESS_KEY_ID": "nobody-knows-this"},
    "none": {"AWS_SECRET_ACCESS_KEY": None, "AWS_ACCESS_KEY_ID": None, "AWS_CONFIG_FILE": "/none", "HOME": "/none"},
}


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_credentials(s3_url: str, tmp_path: Path, with_environment: Callable[..., None], wrong: str) -> None:
    with_environment(**WRONG[wrong])
    store = ArtifactStore(f"{s3_url}/{tmp_path.name}")
    for call in every_call(store, folder_with(tmp_path / "work", FILES)):
        assert "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY" in message_of(call)


def test_bucket_missing(s3_url: str, tmp_path: Path) -> None:
    store = ArtifactStore("s3://no-such-bucket/prefix")
    for call in every_call(store, folder_with(tmp_path / "work", FILES)):
        assert "no-such-bucket/prefix: the bucket does not exist; create it" in message_of(call)


def test_endpoint_not_reachable(s3_url: str, tmp_path: Path, with_environment: Callable[..., None]) -> None:
    with_environment(AWS_ENDPOINT_URL="http://127.0.0.1:1")
    store = ArtifactStore(f"{s3_url}/{tmp_path.name}", SOON)
    told = message_of(lambda: store.write(step(), folder_with(tmp_path / "w", FILES)))
    assert "http://127.0.0.1:1 was asked get_object of reseed-tests/" in told
    assert "AWS_ENDPOINT_URL and the network" in told
    with_environment(AWS_ENDPOINT_URL="no address")
    broken = ArtifactStore(f"{s3_url}/{tmp_path.name}")
    assert "Invalid endpoint: no address; check" in message_of(lambda: broken.find(step().artifact))


@pytest.mark.parametrize(
    "url",
    [
        "s3://key:hush@bucket/prefix", "s3://AKIAEXAMPLE:wJalr/hush@bucket/p", "s3://AKIA:hush/p", "s3://AKIA:1/hush@b/p",
        "s3://k:a@hush@bucket/p", "s3://bucket/p?secret_key=hush", "gs://bucket/prefix", "https://host/store",
    ],
)  # fmt: skip
def test_addresses_that_are_no_store(url: str) -> None:
    message = message_of(lambda: ArtifactStore(url))
    assert "wanted a folder or s3://bucket/prefix" in message
    assert "hush" not in message


def test_root_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("x")
    store = ArtifactStore(str(tmp_path / "store"))
    assert "check the folder" in message_of(lambda: store.write(step(), folder_with(tmp_path / "work", FILES)))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 256 KiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", place], capture_output=True, text=True
    )
    if mounted.returncode != 0:
        pytest.skip(f"mounting a small disk is not permitted here: {mounted.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def free_bytes(place: Path) -> int:
    state = os.statvfs(place)
    return state.f_bavail * state.f_frsize


def test_disk_full(small_disk: Path, tmp_path: Path) -> None:
    store = ArtifactStore(str(small_disk / "store"))
    kept = store.write(step("kept"), folder_with(tmp_path / "small", FILES))
    store.point("adapter", "kept", "latest", kept)
    free = free_bytes(small_disk)
    for size in (1_000_000, free):  # too large; and just so large that there is no room for the manifest
        folder = folder_with(tmp_path / f"large-{size}", {"a": b"x", "data.bin": bytes(size - 4096)})
        told = message_of(partial(store.write, step("large"), folder))
        assert "no space left on the device" in told
        assert "what was finished is kept" in told
        assert store.find(step("large").artifact) is None
        assert stored(store, "adapter/large") == set()
        assert_one_attempt(store, kept)
    (small_disk / "filler").write_bytes(bytes(free_bytes(small_disk)))
    assert "no space left" in message_of(lambda: store.point("adapter", "kept", "latest", step("large").artifact))
    assert store.refs("adapter", "kept") == {"latest": kept}
    (small_disk / "filler").unlink()
    assert_one_attempt(store, store.write(step("large"), folder_with(tmp_path / "fits", FILES)))


def test_disk_full_while_fetching(
    s3_store: ArtifactStore, small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact = s3_store.write(step(), folder_with(tmp_path / "large", {"data.bin": bytes(1_000_000)}))
    monkeypatch.setenv("RESEED_CACHE", str(small_disk))
    assert f"into {small_disk}: no space left on the device" in message_of(lambda: s3_store.fetch(artifact))
    assert [path for path in (small_disk / "artifacts").rglob("*") if path.is_file()] == []
    assert json.loads(s3_store.objects.read(f"{artifact.path}/manifest.json") or b"")["kind"] == "adapter"


def test_folder_without_permission(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory() as place:  # pytest's own folder is closed to other users
        folder_with(Path(place, "work"), FILES)
        Path(place, "store").mkdir(mode=0o555)
        Path(place).chmod(0o755)
        writer = started(write_as_nobody, place)
        writer.join(30)
        assert writer.exitcode == 0


def write_as_nobody(place: str) -> None:
    if os.geteuid() == 0:
        os.setuid(65534)  # root may write everywhere
    store = ArtifactStore(f"{place}/store")
    told = message_of(lambda: store.write(step(), Path(place, "work")))
    assert "access refused" in told
    assert "for a folder its owner and mode" in told


def test_others_may_read_what_the_umask_lets_them(tmp_path: Path) -> None:
    store = ArtifactStore(str(tmp_path / "store"))
    artifact = store.write(step(), folder_with(tmp_path / "work", FILES))
    store.point("adapter", "one", "latest", artifact)
    mask = os.umask(0)
    os.umask(mask)
    for path in (f"{artifact.path}/manifest.json", "refs/adapter/one/latest.json"):
        assert (tmp_path / "store" / path).stat().st_mode & 0o777 == 0o666 & ~mask


def test_scratch(store: ArtifactStore) -> None:
    place = store.scratch("member-1")
    store.fs.makedirs(place, exist_ok=True)
    store.fs.pipe_file(f"{place}/checkpoint.json", b"{}")
    assert stored(store, "scratch") == {"scratch/member-1/checkpoint.json"}
    store.discard_scratch("member-1")
    store.discard_scratch("never-there")
    assert stored(store, "scratch") == set()
