"""How long a store of many artifacts takes to answer: a folder, and a real S3 server that is started here.

    python bench/store.py [--artifacts 10000] [--where folder s3] [--old] [--out FILE]

It makes the manifests itself. `--old` measures reading every manifest too, as look-ups did before names were listed.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # or tests/reseed hides an editable install of reseed
from s3_server import s3_server

from reseed.records import Artifact
from reseed.steps.stored_adapters import find_adapter
from reseed.store.artifacts import ArtifactStore
from reseed.store.manifest import Manifest, StoredFile

NAMES, VERSIONS, STEPS = 10, 10, 1000
SHA = "0" * 64


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--artifacts", type=int, default=10_000)
    parser.add_argument("--where", nargs="+", default=["folder", "s3"], choices=["folder", "s3"])
    parser.add_argument("--old", action="store_true")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(arguments)
    found = {}
    for where in options.where:
        with tempfile.TemporaryDirectory() as place, store_at(where, Path(place)) as store:
            found[where] = measure(store, options.artifacts, options.old)
    for name in next(iter(found.values())):
        print(f"| {name} | " + " | ".join(f"{found[where][name]:.2f} s" for where in found) + " |")
    if options.out:
        options.out.write_text(json.dumps({"artifacts": options.artifacts, "seconds": found}, indent=1))


@contextmanager
def store_at(where: str, place: Path) -> Iterator[ArtifactStore]:
    if where == "folder":
        yield ArtifactStore(str(place / "store"))
        return
    with s3_server(place / "s3") as server:
        os.environ.update(server.environment)
        store = ArtifactStore("s3://bench/store")
        store.fs.mkdir("bench")
        yield store


def measure(store: ArtifactStore, count: int, old: bool) -> dict[str, float]:
    """Seconds of each question, in a store of `count` adapters of ten names."""
    manifests = [manifest("adapter", f"recipe-{n % NAMES}", f"{n:08x}".ljust(32, "5")) for n in range(count)]
    versions = [manifest("dataset", "rewrites", f"{n:032x}") for n in range(VERSIONS)]
    begun = time.monotonic()
    fill(store, [*manifests, *versions])
    for number, one in enumerate(versions):
        store.point("dataset", "rewrites", f"2031-05-{number + 1:02}", one.artifact)
    seconds = {"(making them)": time.monotonic() - begun}
    some = manifests[count // 2].artifact
    planned = [one.artifact for one in manifests[: STEPS // 2]]
    planned += [Artifact(one.kind, one.name, one.key[::-1]) for one in manifests[: STEPS // 2]]

    def ask(name: str, question: Callable[[], object], wanted: object) -> None:
        begun = time.monotonic()
        answer = question()
        seconds[name] = time.monotonic() - begun
        print(f"{store.url.split(':')[0]:8.8} {name}: {seconds[name]:.2f} s", file=sys.stderr, flush=True)
        assert answer == wanted, f"{name}: {answer}"

    ask("export: the adapter of a key's beginning", lambda: find_adapter(store, str(some)), some)
    ask("data list: 10 versions", lambda: listed_versions(store), VERSIONS)
    ask("plan: 1 000 steps, half of them stored", lambda: len(store.finished(planned)), min(STEPS // 2, count))
    ask("the keys of a name", lambda: len(store.keys("adapter", "recipe-0")), len(range(0, count, NAMES)))
    if old:
        ask("every manifest read, as before", lambda: len(store.list("adapter")), count)
        ask(
            "1 000 steps one after the other",
            lambda: sum(store.find(a) is not None for a in planned),
            len(planned) // 2,
        )
    return seconds


def listed_versions(store: ArtifactStore) -> int:
    """What `reseed data list` asks."""
    found = [store.refs("dataset", name) for name in store.ref_names("dataset")]
    return len(store.find_many([a for refs in found for a in refs.values()], listing=True))


def manifest(kind: str, name: str, key: str) -> Manifest:
    """One like a member's: 2 kB, six files."""
    return Manifest(
        kind=kind, name=name, key=key, verb="train", version=2, seed=0, attempt=key[:12], git_commit=SHA[:40], seconds=60,
        spec={"training": {f"setting-{n}": n for n in range(40)}}, inputs={"partition": f"partition/one/{key}"},
        files=tuple(StoredFile(path=f"adapter/file-{n}", size=0, sha256=SHA) for n in range(6)),
        metrics={"loss": 0.5}, packages={"torch": "2.13"}, created=f"2031-05-01T{key}",
    )  # fmt: skip


def fill(store: ArtifactStore, manifests: Sequence[Manifest]) -> None:
    """Put the manifests there, many at once; nobody asks for their files here."""
    objects = {f"{store.root}/{one.artifact.path}/manifest.json": one.model_dump_json().encode() for one in manifests}
    planned = manifests[: STEPS // 2]  # only theirs have files beside them, which a listing meets
    objects |= {f"{store.root}/{one.place}/{file.path}": b"" for one in planned for file in one.files}
    if store.local:
        for path, content in objects.items():
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            Path(path).write_bytes(content)
        return
    store.fs.pipe(objects)


if __name__ == "__main__":
    main()
