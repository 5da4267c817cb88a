"""What the store writes about an artifact, and what it believes when it reads that back.

A manifest and a ref are input: whoever may write into the store could have written them. So every name and path in
them is judged before anything is opened, and a manifest must describe the place that it lies in.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from reseed.files import file_digest
from reseed.mistakes import mistakes
from reseed.records import Artifact, ReseedError
from reseed.store.provenance import is_pickle
from reseed.text import one_line

OWN_FOLDERS = ("refs", "scratch")  # below the root, so no kind is called that
NAME = r"[^\W_][^/\\*?\[\]\x00-\x1f\x7f-\x9f\u2028\u2029]*"
MOST = 300  # characters of a stranger's text in a message
UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def below(path: str) -> str:
    """The path, if it stays below its folder and is written in the one normal way."""
    if UNPRINTABLE.search(path) or "\\" in path or any(part in ("", ".", "..") for part in path.split("/")):
        raise ValueError("wanted a relative path without '..', '.', empty parts, backslashes or control characters")
    return path


def apart(files: tuple[StoredFile, ...]) -> tuple[StoredFile, ...]:
    """The files, if no two of them need the same place."""
    taken: set[str] = set()
    for path in sorted(file.path for file in files):  # a folder sorts before what is in it
        if path in taken or any(str(parent) in taken for parent in Path(path).parents):
            raise ValueError(f"'{path}' stands twice, or inside another file")
        taken.add(path)
    return files


def artifacts(inputs: dict[str, str]) -> dict[str, str]:
    """The inputs, if each names an artifact by its path."""
    for role, path in inputs.items():
        parts = path.split("/")
        if len(parts) != 3 or any(not re.fullmatch(NAME, part) for part in parts):
            raise ValueError(f"{role}: wanted kind/name/key, saw '{path}'")
    return inputs


class StoredFile(BaseModel):
    """One file of an artifact."""

    model_config = ConfigDict(frozen=True)
    path: Annotated[str, AfterValidator(below)]
    size: int = Field(ge=0)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class Manifest(BaseModel):
    """What an artifact is, where it came from, and what it holds."""

    model_config = ConfigDict(frozen=True)
    kind: str
    name: str
    key: str
    verb: str
    version: int
    spec: dict[str, Any]
    inputs: Annotated[dict[str, str], AfterValidator(artifacts)]  # role → kind/name/key
    seed: int | None
    attempt: str = Field(pattern="^[0-9a-f]{1,64}$")
    files: Annotated[tuple[StoredFile, ...], AfterValidator(apart)]
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


def read_manifest(store: str, path: str, content: bytes) -> Manifest:
    """The manifest that lies at `path` of a store; raises ReseedError, with the way out, if it cannot be trusted."""
    fix = "remove it to run the step again"
    try:
        manifest = Manifest.model_validate_json(content)
    except ValidationError as error:
        raise ReseedError(f"store {store}: {path} is damaged; {fix} ({told(error, Manifest)})") from error
    if f"{manifest.artifact.path}/manifest.json" != path:
        raise ReseedError(
            f"store {store}: {path} is damaged; {fix} (it describes {one_line(manifest.artifact.path, MOST)})"
        )
    return manifest


def read_target(store: str, path: str, content: bytes) -> Artifact:
    """Where the ref at `path` points; raises ReseedError as `read_manifest` does."""
    try:
        target = Target.model_validate_json(content)
        check_names(target.kind, target.name, target.key)
    except (ValidationError, ReseedError) as error:
        why = told(error, Target) if isinstance(error, ValidationError) else one_line(str(error), MOST)
        raise ReseedError(f"store {store}: {path} is damaged; remove it and publish again ({why})") from error
    return Artifact(target.kind, target.name, target.key)


def told(error: ValidationError, model: type[BaseModel]) -> str:
    """The first of the mistakes; what a stranger wrote is shown without its control characters."""
    first, *more = mistakes(error, model)
    return one_line(first, MOST) + (f", and {len(more)} more" if more else "")


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
    try:
        return tuple(
            StoredFile(path=path.relative_to(folder).as_posix(), size=path.stat().st_size, sha256=file_digest(path))
            for path in paths
        )
    except ValidationError as error:
        raise ReseedError(f"{folder}: a file's name cannot be stored: {told(error, StoredFile)}; rename it") from error


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
        if not re.fullmatch(NAME, given):
            raise ReseedError(
                f"store: '{given}' cannot be a kind, name, key or ref; wanted a letter or digit, then no / \\ * ? [ ]"
            )
    if kind in OWN_FOLDERS:
        raise ReseedError(f"store: '{kind}' cannot be a kind; the store keeps {' and '.join(OWN_FOLDERS)} for itself")


def again(artifact: Artifact) -> str:
    """How to get a broken artifact anew."""
    return f"remove {manifest_path(artifact)} to run the step again"


def listed_files(files: Sequence[StoredFile]) -> dict[str, tuple[int, str]]:
    """Path → size and SHA-256, as `reseed.store.verified` compares them."""
    return {file.path: (file.size, file.sha256) for file in files}
