"""What a hub's name means today: the commit. A name may mean another one tomorrow, so keys hold the commit."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from typing import Literal

from reseed.files import cache_root, write_atomically
from reseed.mistakes import first_line
from reseed.records import ReseedError
from reseed.text import one_line

COMMIT = re.compile(r"[0-9a-f]{40}")
LOG_IN = "set HF_TOKEN or log in with `hf auth login`"
SECONDS = 10  # that the hub has for its answer


def commit_of(name: str, kind: Literal["model", "dataset"]) -> str | None:
    """The commit of `owner/name[@revision]`: as the hub says, else as it said when it was last asked from this machine.

    None where it cannot be reached and never was. Raises ReseedError for a name that the hub does not have, and for one that
    it never gave here and now refuses.
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
                f"the name, {LOG_IN} if it is private, or give a path"
            ) from error
        if (refused := refusal(error)) and remembered(repository, revision, kind) is None:
            raise ReseedError(f"{kind} '{name}': {refused}, or give a path") from error
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


def refusal(error: BaseException) -> str | None:
    """What is wrong and what to do where the hub answered 401 or 403; None for other errors, and for a repository that may
    not exist: without a token the hub says 401 of it, too."""
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

    for one in (error, error.__cause__):  # `snapshot_download` wraps a 403
        if not isinstance(one, HfHubHTTPError) or one.response is None or one.response.status_code not in (401, 403):
            continue
        if isinstance(one, GatedRepoError):
            return f"it is gated: ask for access on its page on the hub, then {LOG_IN}"
        if not isinstance(one, RepositoryNotFoundError):
            status = one.response.status_code
            wrong = "wants a valid token" if status == 401 else "does not let you read it"
            said = one_line(one.server_message or first_line(one), 200)
            return (
                f"the hub answered {status}: it {wrong} ({said}); set HF_TOKEN to a token that "
                "may read it, or log in with `hf auth login`"
            )
    return None


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
