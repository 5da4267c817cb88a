"""The artifact store: immutable folders and movable names, on a local folder or on S3, through fsspec.

    <root>/<kind>/<name>/<key>/<attempt>/…files…      written first; each attempt to write it has its own folder
    <root>/<kind>/<name>/<key>/manifest.json          created last, once: it names the attempt that counts
    <root>/refs/<kind>/<name>/<ref>.json              the only things that move; compare-and-swap

A reader trusts manifests alone, so it never sees half an artifact, and of two writers of one key one wins whole.
"""

from __future__ import annotations

import logging
import re
import shutil
import uuid
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from reseed.credentials import without_credentials
from reseed.files import cache_root, digest, locked, new_folder
from reseed.records import Artifact, ReseedError
from reseed.store.errors import explained
from reseed.store.leftovers import held_attempt, take_away_attempts
from reseed.store.manifest import (
    Manifest,
    Ref,
    Target,
    again,
    check_names,
    listed_files,
    manifest_path,
    read_manifest,
    read_target,
    ref_path,
    stored_files,
)
from reseed.store.objects import LocalObjects, open_objects
from reseed.store.patience import PATIENCE, Patience
from reseed.store.provenance import git_commit, package_versions, portable
from reseed.store.step import Step, Work
from reseed.store.verified import faults

log = logging.getLogger(__name__)
T = TypeVar("T")


class ArtifactStore:
    """The store at `url`: a folder, or s3://bucket/prefix."""

    def __init__(self, url: str, patience: Patience = PATIENCE) -> None:
        self.url = without_credentials(url)
        bucket = re.match(r"(s3a?://)(?!arn:)[^/]*[:@]", url)
        if bucket is not None:  # no bucket's name: half of a key, perhaps
            self.url = f"{bucket[1]}***"
        if "://" in url and (not re.match(r"(s3|s3a|file)://", url) or self.url != url):
            raise ReseedError(
                f"store {self.url}: wanted a folder or s3://bucket/prefix; credentials go into AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY, never into the address"
            )
        with explained(self.url):
            self.objects, self.fs, self.root = open_objects(url, patience)
        self.local = isinstance(self.objects, LocalObjects)

    def find(self, artifact: Artifact) -> Manifest | None:
        """The manifest of a finished artifact, or None."""
        path = manifest_path(artifact)
        with explained(self.url):
            content = self.objects.read(path)
        return read_manifest(self.url, path, content) if content is not None else None

    def manifest(self, artifact: Artifact) -> Manifest:
        """The manifest of an artifact that must be there."""
        manifest = self.find(artifact)
        if manifest is None:
            raise ReseedError(f"store {self.url}: there is no {artifact.path}; run the step that makes it")
        return manifest

    def find_many(self, artifacts: Iterable[Artifact], listing: bool = False) -> dict[Artifact, Manifest]:
        """The manifests of those that are finished, asked for together. One that is damaged is an error, unless it is
        for a listing: then it is told in the log and left out."""
        paths = [manifest_path(artifact) for artifact in artifacts]
        with explained(self.url):
            found = self.objects.read_many(paths)
        read = whole_ones if listing else every_one
        return {manifest.artifact: manifest for manifest in read(read_manifest, self.url, found).values()}

    def finished(self, artifacts: Iterable[Artifact]) -> set[Artifact]:
        """Those that are finished, without reading what they are."""
        paths = {manifest_path(artifact): artifact for artifact in artifacts}
        with explained(self.url):
            return {paths[path] for path in self.objects.there(list(paths))}

    def names(self, kind: str) -> list[str]:
        """The names of a kind, without reading what is under them. Some may hold nothing finished."""
        check_names(kind)
        with explained(self.url):
            return self.objects.names(kind)

    def keys(self, kind: str, name: str, start: str = "") -> list[str]:
        """The keys under a name that begin with `start`, without reading them: some may not be finished."""
        check_names(kind, name, start or "any")
        with explained(self.url):
            return self.objects.names(f"{kind}/{name}", start)

    def ref_names(self, kind: str) -> list[str]:
        """The names of a kind that have movable names."""
        check_names(kind)
        with explained(self.url):
            return self.objects.names(f"refs/{kind}")

    def list(self, kind: str, name: str | None = None) -> list[Manifest]:
        """The manifests of a kind, oldest first. It reads them all; a damaged one is told in the log and left out."""
        check_names(kind, name or "any")
        with explained(self.url):
            found = self.objects.find(f"{kind}/{name or '*'}/*/manifest.json")
        manifests = whole_ones(read_manifest, self.url, found).values()
        return sorted(manifests, key=lambda m: (m.created, m.key))

    def write(
        self, step: Step[Work], folder: Path, metrics: dict[str, Any] | None = None, seconds: float = 0.0
    ) -> Artifact:
        """Put the files of `folder` into the store as the step's artifact. If another was first, theirs stays."""
        artifact = step.artifact
        if self.find(artifact) is not None:
            return artifact
        manifest = Manifest(
            **asdict(artifact), verb=step.verb, version=step.work.version, spec=portable(step.spec), seed=step.seed,
            inputs={role: given.path for role, given in step.inputs.items()}, attempt=uuid.uuid4().hex[:12],
            files=stored_files(folder), metrics=portable(metrics or {}), packages=package_versions(),
            git_commit=git_commit(), seconds=round(seconds, 3),
            created=datetime.now(UTC).isoformat(timespec="microseconds"),
        )  # fmt: skip
        content = manifest.model_dump_json(indent=1).encode()
        with explained(self.url), held_attempt(self.objects, manifest.place):
            try:
                for file in manifest.files:
                    self.objects.put(folder / file.path, f"{manifest.place}/{file.path}")
            except BaseException:
                self._discard(manifest.place)
                raise
            if not self._publish(manifest, content):
                self._discard(manifest.place)
            else:
                take_away_attempts(self.objects, manifest)
        return artifact

    def _publish(self, manifest: Manifest, content: bytes) -> bool:
        """Create the manifest, or say False because another writer was first."""
        path = manifest_path(manifest.artifact)
        try:
            return self.objects.create(path, content)
        except BaseException:
            # On S3 a put that failed here, or was interrupted, may still happen: then it must find its files.
            if self.local and self.objects.read(path) != content:
                self._discard(manifest.place)
            raise

    def fetch(self, artifact: Artifact) -> Path:
        """A local folder with the artifact's files: the store's own on a local store, else a copy.

        Every file has the SHA-256 that the manifest says, compared once by each process.
        """
        manifest = self.manifest(artifact)
        files = listed_files(manifest.files)
        if self.local:
            folder = Path(self.root) / manifest.place
            if not manifest.files:  # an artifact may consist of its metrics alone
                folder.mkdir(exist_ok=True)
            with explained(self.url):
                wrong = faults(folder, files)
            if wrong:
                raise ReseedError(
                    f"store {self.url}: {artifact.path} is not what its manifest says ({'; '.join(wrong[:5])}); "
                    + again(artifact)
                )
            return folder
        target = cache_root() / "artifacts" / digest(self.url, 12) / manifest.place
        if target.is_dir() and not faults(target, files):
            return target
        with explained(self.url), locked(cache_root() / "locks" / f"{digest([self.url, manifest.place], 16)}.lock"):
            if not target.is_dir() or faults(target, files):
                for left in (target, *target.parent.glob(f".{target.name}-*")):  # by a download that was killed
                    shutil.rmtree(left, ignore_errors=True)
                with new_folder(target) as scratch:
                    self._download(manifest, scratch)
        return target

    def _download(self, manifest: Manifest, target: Path) -> None:
        for file in manifest.files:
            (target / file.path).parent.mkdir(parents=True, exist_ok=True)
            with explained(f"{self.url}: copying {manifest.artifact.path}/{file.path} into {cache_root()}"):
                self.objects.get(f"{manifest.place}/{file.path}", target / file.path)
        if wrong := faults(target, listed_files(manifest.files)):
            raise ReseedError(
                f"store {self.url}: {manifest.artifact.path} is not what its manifest says ({'; '.join(wrong[:5])}); "
                + again(manifest.artifact)
            )

    def ref(self, kind: str, name: str, ref: str) -> Ref | None:
        """What a movable name points at."""
        path = ref_path(kind, name, ref)
        with explained(self.url):
            content = self.objects.read(path)
        return Ref(read_target(self.url, path, content), content.decode()) if content is not None else None

    def refs(self, kind: str, name: str) -> dict[str, Artifact]:
        """Every movable name of one thing; a damaged one is told in the log and left out."""
        with explained(self.url):
            found = self.objects.find(ref_path(kind, name, "*"))
        targets = whole_ones(read_target, self.url, found)
        return {Path(path).name.removesuffix(".json"): target for path, target in targets.items()}

    def move_ref(self, kind: str, name: str, ref: str, artifact: Artifact, expected: Ref | None) -> bool:
        """Point `ref` at `artifact` if it still is what `expected` says (None: not there). False: someone was first."""
        path = ref_path(kind, name, ref)
        content = Target(**asdict(artifact), move=uuid.uuid4().hex).model_dump_json().encode()
        with explained(self.url):
            if expected is None:
                return self.objects.create(path, content)
            return self.objects.swap(path, expected.tag.encode(), content)

    def point(
        self, kind: str, name: str, ref: str, artifact: Artifact, stays: Callable[[Artifact], bool] = lambda now: False
    ) -> None:
        """Move `ref` to `artifact`, whoever else moves it, unless what it names now `stays`."""
        for _ in range(20):
            now = self.ref(kind, name, ref)
            if now is not None and stays(now.artifact):
                return
            if self.move_ref(kind, name, ref, artifact, expected=now):
                return
        raise ReseedError(f"store {self.url}: {kind}/{name}@{ref} is moved by others all the time; try again")

    def scratch(self, name: str) -> str:
        """A place below the root for what is not an artifact yet: checkpoints of a member in training."""
        return f"{self.root}/scratch/{name}"

    def discard_scratch(self, name: str) -> None:
        """Remove a scratch place."""
        self._discard(f"scratch/{name}")

    def _discard(self, place: str) -> None:
        with suppress(Exception):  # an orphan is garbage that no manifest names; it must not hide what led here
            self.objects.remove(place)


def every_one(read: Callable[[str, str, bytes], T], store: str, found: Mapping[str, bytes]) -> dict[str, T]:
    """What lies at each path, or the error of the first that is damaged."""
    return {path: read(store, path, content) for path, content in found.items()}


def whole_ones(read: Callable[[str, str, bytes], T], store: str, found: Mapping[str, bytes]) -> dict[str, T]:
    """The same without those that are damaged, each of which is told in the log."""
    whole = {}
    for path, content in found.items():
        try:
            whole[path] = read(store, path, content)
        except ReseedError as error:
            log.warning("left out: %s", error)
    return whole
