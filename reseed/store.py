"""The artifact store: immutable folders and movable names, on a local folder or on S3, through fsspec.

    <root>/<kind>/<name>/<key>/<attempt>/…files…      written first; each attempt to write it has its own folder
    <root>/<kind>/<name>/<key>/manifest.json          created last, once: it names the attempt that counts
    <root>/refs/<kind>/<name>/<ref>.json              the only things that move; compare-and-swap

A reader trusts manifests alone, so it never sees half an artifact, and of two writers of one key one wins whole.
"""

from __future__ import annotations

import re
import shutil
import uuid
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from reseed.files import digest, file_digest, locked, new_folder
from reseed.leftovers import held_attempt, take_away_attempts
from reseed.models.cache import cache_root
from reseed.objects import LocalObjects, open_objects
from reseed.provenance import USER_INFO, git_commit, is_pickle, package_versions, portable
from reseed.records import Artifact, ReseedError
from reseed.steps import Step
from reseed.store_errors import explained

OWN_FOLDERS = ("refs", "scratch")  # below the root, so no kind is called that


class StoredFile(BaseModel):
    """One file of an artifact."""

    model_config = ConfigDict(frozen=True)
    path: str
    size: int
    sha256: str


class Manifest(BaseModel):
    """What an artifact is, where it came from, and what it holds."""

    model_config = ConfigDict(frozen=True)
    kind: str
    name: str
    key: str
    verb: str
    version: int
    spec: dict[str, Any]
    inputs: dict[str, str]  # role → kind/name/key
    seed: int | None
    attempt: str
    files: tuple[StoredFile, ...]
    metrics: dict[str, Any]
    packages: dict[str, str]
    git_commit: str | None
    seconds: float
    created: str

    @property
    def artifact(self) -> Artifact:
        """The artifact that this describes."""
        return Artifact(self.kind, self.name, self.key)

    @property
    def place(self) -> str:
        """Where its files are, below the store's root."""
        return f"{self.artifact.path}/{self.attempt}"

    def is_whole(self, folder: Path) -> bool:
        """True when `folder` has every file in its size."""
        found = [(folder / file.path, file.size) for file in self.files]
        return folder.is_dir() and all(path.is_file() and path.stat().st_size == size for path, size in found)


class Target(BaseModel):
    """What a ref's file says. `move` makes every move's content different, so that a swap can tell them apart."""

    kind: str
    name: str
    key: str
    move: str


@dataclass(frozen=True)
class Ref:
    """A movable name's target, and the content that a swap compares."""

    artifact: Artifact
    tag: str


class ArtifactStore:
    """The store at `url`: a folder, or s3://bucket/prefix."""

    def __init__(self, url: str) -> None:
        self.url = USER_INFO.sub(r"\1***@", url)
        if "://" in url and (not re.match(r"(s3|s3a|file)://", url) or self.url != url):
            raise ReseedError(
                f"store {self.url}: wanted a folder or s3://bucket/prefix; credentials go into AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY, never into the address"
            )
        with explained(self.url):
            self.objects, self.fs, self.root = open_objects(url)
        self.local = isinstance(self.objects, LocalObjects)

    def find(self, artifact: Artifact) -> Manifest | None:
        """The manifest of a finished artifact, or None."""
        path = manifest_path(artifact)
        with explained(self.url):
            content = self.objects.read(path)
        return self._manifest(path, content) if content is not None else None

    def manifest(self, artifact: Artifact) -> Manifest:
        """The manifest of an artifact that must be there."""
        manifest = self.find(artifact)
        if manifest is None:
            raise ReseedError(f"store {self.url}: there is no {artifact.path}; run the step that makes it")
        return manifest

    def list(self, kind: str, name: str | None = None) -> list[Manifest]:
        """The manifests of a kind, oldest first."""
        check_names(kind, name or "any")
        with explained(self.url):
            found = self.objects.find(f"{kind}/{name or '*'}/*/manifest.json")
        return sorted((self._manifest(*one) for one in found.items()), key=lambda m: (m.created, m.key))

    def write(self, step: Step, folder: Path, metrics: dict[str, Any] | None = None, seconds: float = 0.0) -> Artifact:
        """Put the files of `folder` into the store as the step's artifact. If another was first, theirs stays."""
        artifact = step.artifact
        if self.find(artifact) is not None:
            return artifact
        manifest = Manifest(
            **asdict(artifact), verb=step.verb, version=step.version, spec=portable(step.spec), seed=step.seed,
            inputs={role: given.path for role, given in step.inputs.items()}, attempt=uuid.uuid4().hex[:12],
            files=stored_files(folder), metrics=portable(metrics or {}), packages=package_versions(),
            git_commit=git_commit(), seconds=round(seconds, 3),
            created=datetime.now(UTC).isoformat(timespec="microseconds"),
        )  # fmt: skip
        content = manifest.model_dump_json(indent=1).encode()
        with explained(self.url), held_attempt(self, manifest.place):
            try:
                for file in manifest.files:
                    self.objects.put(folder / file.path, f"{manifest.place}/{file.path}")
            except BaseException:
                self._discard(manifest.place)
                raise
            if not self._publish(manifest, content):
                self._discard(manifest.place)
            else:
                take_away_attempts(self, manifest)
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
        """A local folder with the artifact's files: the store's own on a local store, else a verified copy."""
        manifest = self.manifest(artifact)
        if self.local:
            folder = Path(self.root) / manifest.place
            if manifest.files and not manifest.is_whole(folder):
                raise ReseedError(f"store {self.url}: files of {artifact.path} are missing or cut; {again(artifact)}")
            if not manifest.files:  # an artifact may consist of its metrics alone
                folder.mkdir(exist_ok=True)
            return folder
        target = cache_root() / "artifacts" / digest(self.url, 12) / manifest.place
        if manifest.is_whole(target):
            return target
        with explained(self.url), locked(cache_root() / "locks" / f"{digest([self.url, manifest.place], 16)}.lock"):
            if not manifest.is_whole(target):
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
            if file_digest(target / file.path) != file.sha256:
                raise ReseedError(
                    f"store {self.url}: {manifest.artifact.path}/{file.path} is not what its manifest says (SHA-256); "
                    + again(manifest.artifact)
                )

    def ref(self, kind: str, name: str, ref: str) -> Ref | None:
        """What a movable name points at."""
        path = ref_path(kind, name, ref)
        with explained(self.url):
            content = self.objects.read(path)
        return Ref(self._target(path, content), content.decode()) if content is not None else None

    def refs(self, kind: str, name: str) -> dict[str, Artifact]:
        """Every movable name of one thing."""
        with explained(self.url):
            found = self.objects.find(ref_path(kind, name, "*"))
        return {Path(path).name.removesuffix(".json"): self._target(path, content) for path, content in found.items()}

    def move_ref(self, kind: str, name: str, ref: str, artifact: Artifact, expected: Ref | None) -> bool:
        """Point `ref` at `artifact` if it still is what `expected` says (None: not there). False: someone was first."""
        path = ref_path(kind, name, ref)
        content = Target(**asdict(artifact), move=uuid.uuid4().hex).model_dump_json().encode()
        with explained(self.url):
            if expected is None:
                return self.objects.create(path, content)
            return self.objects.swap(path, expected.tag.encode(), content)

    def point(self, kind: str, name: str, ref: str, artifact: Artifact) -> None:
        """Move `ref` to `artifact`, whoever else moves it."""
        for _ in range(20):
            if self.move_ref(kind, name, ref, artifact, self.ref(kind, name, ref)):
                return
        raise ReseedError(f"store {self.url}: {kind}/{name}@{ref} is moved by others all the time; try again")

    def scratch(self, name: str) -> str:
        """A place below the root for what is not an artifact yet: checkpoints of a member in training."""
        return f"{self.root}/scratch/{name}"

    def discard_scratch(self, name: str) -> None:
        """Remove a scratch place."""
        self._discard(f"scratch/{name}")

    def _manifest(self, path: str, content: bytes) -> Manifest:
        try:
            return Manifest.model_validate_json(content)
        except ValidationError as error:
            raise ReseedError(f"store {self.url}: {path} is damaged; remove it to run the step again") from error

    def _target(self, path: str, content: bytes) -> Artifact:
        try:
            target = Target.model_validate_json(content)
        except ValidationError as error:
            raise ReseedError(f"store {self.url}: {path} is damaged; remove it and publish again") from error
        return Artifact(target.kind, target.name, target.key)

    def _discard(self, place: str) -> None:
        with suppress(Exception):  # an orphan is garbage that no manifest names; it must not hide what led here
            self.objects.remove(place)


def stored_files(folder: Path) -> tuple[StoredFile, ...]:
    """Size and digest of every file below `folder`; refuses what runs code when it is loaded."""
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder}: no folder to write into the store")
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    pickles = [path.relative_to(folder).as_posix() for path in paths if is_pickle(path)]
    if pickles:
        raise ReseedError(
            f"{', '.join(pickles)}: a pickle, which the store never holds; wanted safetensors, JSON or Parquet"
        )
    return tuple(
        StoredFile(path=path.relative_to(folder).as_posix(), size=path.stat().st_size, sha256=file_digest(path))
        for path in paths
    )


def manifest_path(artifact: Artifact) -> str:
    """Where an artifact's manifest is."""
    check_names(artifact.kind, artifact.name, artifact.key)
    return f"{artifact.path}/manifest.json"


def ref_path(kind: str, name: str, ref: str) -> str:
    """Where a movable name is; `*` for all of a thing's."""
    check_names(kind, name, "any" if ref == "*" else ref)
    return f"refs/{kind}/{name}/{ref}.json"


def check_names(kind: str, *names: str) -> None:
    """Refuse names that would lead out of their place in the store."""
    for given in (kind, *names):
        if not re.fullmatch(r"[^\W_][^/\\*?\[\]\x00-\x1f]*", given):
            raise ReseedError(
                f"store: '{given}' cannot be a kind, name, key or ref; wanted a letter or digit, then no / \\ * ? [ ]"
            )
    if kind in OWN_FOLDERS:
        raise ReseedError(f"store: '{kind}' cannot be a kind; the store keeps {' and '.join(OWN_FOLDERS)} for itself")


def again(artifact: Artifact) -> str:
    """How to get a broken artifact anew."""
    return f"remove {manifest_path(artifact)} to run the step again"
