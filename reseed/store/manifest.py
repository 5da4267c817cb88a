"""What the store writes about an artifact, and what it trusts when it reads that back.

Manifests and refs are untrusted input: anybody who can write into the store may have written them. So every name and
path in them is checked before anything is opened, and a manifest must describe the place that it is in.
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

OWN_FOLDERS = ("refs", "scratch")  # below the root, so no kind may have these names
NAME = r"[^\W_][^/\\*?\[\]\x00-\x1f\x7f-\x9f\u2028\u2029]*"
MOST = 300  # characters of untrusted text in a message
UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def check_path(path: str) -> str:
    """Return the path if it stays below its folder and is in normal form; a validator."""
    if UNPRINTABLE.search(path) or "\\" in path or any(part in ("", ".", "..") for part in path.split("/")):
        raise ValueError("wanted a relative path without '..', '.', empty parts, backslashes or control characters")
    return path


def check_no_overlap(files: tuple[StoredFile, ...]) -> tuple[StoredFile, ...]:
    """Return the files if no two of them need the same place; a validator."""
    taken: set[str] = set()
    for path in sorted(file.path for file in files):  # a folder sorts before what is in it
        if path in taken or any(str(parent) in taken for parent in Path(path).parents):
            raise ValueError(f"'{path}' is listed twice, or lies inside another file")
        taken.add(path)
    return files


def check_inputs(inputs: dict[str, str]) -> dict[str, str]:
    """Return the inputs if each is the path of an artifact; a validator."""
    for role, path in inputs.items():
        parts = path.split("/")
        if len(parts) != 3 or any(not re.fullmatch(NAME, part) for part in parts):
            raise ValueError(f"{role}: wanted kind/name/key, saw '{path}'")
    return inputs


class StoredFile(BaseModel):
    """One file of an artifact."""

    model_config = ConfigDict(frozen=True)
    path: Annotated[str, AfterValidator(check_path)]
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
    inputs: Annotated[dict[str, str], AfterValidator(check_inputs)]  # role → kind/name/key
    seed: int | None
    attempt: str = Field(pattern="^[0-9a-f]{1,64}$")
    files: Annotated[tuple[StoredFile, ...], AfterValidator(check_no_overlap)]
    metrics: dict[str, Any]
    packages: dict[str, str]
    git_commit: str | None
    seconds: float
    created: str

    @property
    def artifact(self) -> Artifact:
        """The artifact that this manifest describes."""
        return Artifact(self.kind, self.name, self.key)

    @property
    def place(self) -> str:
        """The folder of its files, below the store's root."""
        return f"{self.artifact.path}/{self.attempt}"


class Target(BaseModel):
    """The content of a ref. `move` is a nonce: it makes every move's content different, so that a swap can compare them."""

    kind: str
    name: str
    key: str
    move: str


@dataclass(frozen=True)
class Ref:
    """Where a ref points, and the content that a swap compares."""

    artifact: Artifact
    tag: str


def read_manifest(store: str, path: str, content: bytes) -> Manifest:
    """The manifest at `path` of a store. Raises ReseedError, with the fix, if it cannot be trusted."""
    fix = "remove it to run the step again"
    try:
        manifest = Manifest.model_validate_json(content)
    except ValidationError as error:
        raise ReseedError(f"store {store}: {path} is damaged; {fix} ({first_mistake(error, Manifest)})") from error
    if f"{manifest.artifact.path}/manifest.json" != path:
        raise ReseedError(
            f"store {store}: {path} is damaged; {fix} (it describes {one_line(manifest.artifact.path, MOST)})"
        )
    return manifest


def read_target(store: str, path: str, content: bytes) -> Artifact:
    """The target of the ref at `path`. Raises ReseedError as `read_manifest` does."""
    try:
        target = Target.model_validate_json(content)
        check_names(target.kind, target.name, target.key)
    except (ValidationError, ReseedError) as error:
        why = first_mistake(error, Target) if isinstance(error, ValidationError) else one_line(str(error), MOST)
        raise ReseedError(f"store {store}: {path} is damaged; remove it and publish again ({why})") from error
    return Artifact(target.kind, target.name, target.key)


def first_mistake(error: ValidationError, model: type[BaseModel]) -> str:
    """The first mistake and how many more there are, with control characters made visible."""
    first, *more = mistakes(error, model)
    return one_line(first, MOST) + (f", and {len(more)} more" if more else "")


def stored_files(folder: Path) -> tuple[StoredFile, ...]:
    """Size and digest of every file below `folder`. Raises ReseedError for a pickle, which runs code when it is loaded."""
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
        raise ReseedError(
            f"{folder}: a file's name cannot be stored: {first_mistake(error, StoredFile)}; rename it"
        ) from error


def manifest_path(artifact: Artifact) -> str:
    """The path of an artifact's manifest."""
    check_names(artifact.kind, artifact.name, artifact.key)
    return f"{artifact.path}/manifest.json"


def ref_path(kind: str, name: str, ref: str) -> str:
    """The path of a ref; `*` for the pattern of all refs of a name."""
    check_names(kind, name, "any" if ref == "*" else ref)
    return f"refs/{kind}/{name}/{ref}.json"


def check_names(kind: str, *names: str) -> None:
    """Refuse names that would escape their place in the store."""
    for text in (kind, *names):
        if not re.fullmatch(NAME, text):
            raise ReseedError(
                f"store: '{text}' cannot be a kind, name, key or ref; wanted a letter or digit, then no / \\ * ? [ ]"
            )
    if kind in OWN_FOLDERS:
        raise ReseedError(f"store: '{kind}' cannot be a kind; the store keeps {' and '.join(OWN_FOLDERS)} for itself")


def again(artifact: Artifact) -> str:
    """How to have a broken artifact made again."""
    return f"remove {manifest_path(artifact)} to run the step again"


def listed_files(files: Sequence[StoredFile]) -> dict[str, tuple[int, str]]:
    """Path → size and SHA-256, as `reseed.store.verified` takes them."""
    return {file.path: (file.size, file.sha256) for file in files}
