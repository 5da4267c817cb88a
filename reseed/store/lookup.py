"""Finding an artifact by what a user types: its kind, its name and the beginning of its key."""

from __future__ import annotations

from collections.abc import Sequence

from reseed.mistakes import nearest
from reseed.records import Artifact, ReseedError
from reseed.store.artifacts import ArtifactStore

SHOWN = 20  # keys in a message


def find_artifact(store: ArtifactStore, text: str, kinds: Sequence[str], shown_by: str) -> Artifact:
    """The finished artifact `KIND/NAME/KEY` of one of the kinds; the beginning of its key is enough.

    `shown_by` names the command that prints such paths, for the message that answers a text of another form.
    """
    kind, _, rest = text.strip("/").partition("/")
    name, _, key = rest.partition("/")
    if kind not in kinds or not name or not key:
        wanted = " or ".join(f"{known}/NAME/KEY" for known in kinds)
        meant = "" if kind in kinds else nearest(kind, list(kinds))
        raise ReseedError(f"artifact '{text}': wanted {wanted}{meant}, as {shown_by} shows it")
    begin = [Artifact(kind, name, known) for known in store.keys(kind, name, key)]
    fits = [found for found in begin if found.key == key] or begin
    if len(fits) <= SHOWN:  # else so few letters were typed that it is no use to look at them all
        fits = list(store.find_many(fits))
    if len(fits) == 1:
        return fits[0]
    if fits:
        some = ", ".join(found.key[:20] for found in fits[:SHOWN]) + (", …" if len(fits) > SHOWN else "")
        raise ReseedError(f"artifact '{text}': {len(fits)} keys begin so: {some}")
    raise ReseedError(f"artifact '{text}': not in the store {store.url}; {known_keys(store, kind, name)}")


def known_keys(store: ArtifactStore, kind: str, name: str) -> str:
    """What there is instead of a key that is not there."""
    keys = store.keys(kind, name)
    some = [Artifact(kind, name, key) for key in keys[:SHOWN]]
    if finished := list(store.find_many(some, listing=True)):
        return f"its keys are {', '.join(a.key[:12] for a in finished)}" + (", …" if len(keys) > SHOWN else "")
    if keys:
        return "nothing of that name is finished"
    return f"no such name{nearest(name, store.names(kind))}"
