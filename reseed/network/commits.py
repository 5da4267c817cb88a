"""What a hub's name means today: the commit. A name may mean another one tomorrow, so keys hold the commit."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from typing import Literal

from reseed.files import cache_root, write_atomically
from reseed.mistakes import first_line
from reseed.records import ReseedError

COMMIT = re.compile(r"[0-9a-f]{40}")
SECONDS = 10  # that the hub has for its answer


def commit_of(name: str, kind: Literal["model", "dataset"]) -> str | None:
    """The commit of `owner/name[@revision]`: as the hub says, else as it said when it was last asked from this machine.

    None where it cannot be reached and never was. Raises ReseedError for a name that the hub does not have.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HFValidationError

    repository, _, revision = name.partition("@")
    if COMMIT.fullmatch(revision):
        return revision
    revision = revision or "main"
    try:
        found = HfApi().repo_info(repository, revision=revision, repo_type=kind, timeout=SECONDS).sha
    except HFValidationError as error:
        raise ReseedError(f"{kind} '{name}': neither a path here nor a hub id ({first_line(error)})") from error
    except Exception as error:  # the network may be away, or the hub busy, in one of many ways
        if is_final(error):
            raise ReseedError(
                f"{kind} '{name}': the hub has none of that name and revision for you ({type(error).__name__}); check "
                "the name, log in with `hf auth login` if it is private, or give a path"
            ) from error
        found = None
    if found is None:
        return remembered(repository, revision, kind)
    with suppress(OSError):  # where the cache cannot be written to, the hub is asked again
        write_atomically(note_of(repository, revision, kind), found.encode())
    return found


def is_final(error: Exception) -> bool:
    """True if the hub said that there is no such repository or revision, or not for this user."""
    from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

    gone = isinstance(error, HfHubHTTPError) and error.response is not None and error.response.status_code == 404
    return gone or isinstance(error, (RepositoryNotFoundError, RevisionNotFoundError))


def known_commit(name: str, kind: Literal["model", "dataset"] = "model") -> str | None:
    """The same from memory: the hub is not asked."""
    repository, _, revision = name.partition("@")
    return revision if COMMIT.fullmatch(revision) else remembered(repository, revision or "main", kind)


def note_of(repository: str, revision: str, kind: str) -> Path:
    """Where this machine remembers a commit."""
    return cache_root() / "commits" / "--".join([kind, *repository.split("/"), revision.replace("/", "--")])


def remembered(repository: str, revision: str, kind: str) -> str | None:
    """The commit that the hub said when it was last asked, by us or by others who use its cache."""
    from huggingface_hub import constants

    name = f"{kind}s--{repository.replace('/', '--')}"
    notes = (note_of(repository, revision, kind), Path(constants.HF_HUB_CACHE, name, "refs", revision))
    for note in sorted((note for note in notes if note.is_file()), key=lambda note: -note.stat().st_mtime):
        if COMMIT.fullmatch(found := note.read_text(errors="replace").strip()):
            return found
    return None
