"""Adapters of earlier runs: found by what a user types, checked before they are continued, with the rows behind them."""

from __future__ import annotations

from collections.abc import Iterator

from reseed.mistakes import mistake_list
from reseed.models.names import ModelSpec, identity
from reseed.records import Artifact, ReseedError
from reseed.settings import SHAPE, TrainingSettings, is_stored
from reseed.store.artifacts import ArtifactStore
from reseed.store.lookup import find_artifact
from reseed.store.manifest import Manifest


def find_adapter(store: ArtifactStore, name: str) -> Artifact:
    """The adapter `adapter/<name>/<key>`, of whose key the beginning is enough, as `reseed results` shows it."""
    return find_artifact(store, name, ("adapter",), "`reseed results NAME --json`")


def stored_start(store: ArtifactStore, variant: str, settings: TrainingSettings, model: ModelSpec) -> Artifact | None:
    """The stored adapter that a variant's members continue, if it names one. Raises ReseedError with every mismatch."""
    if settings.start_from is None or not is_stored(settings.start_from):
        return None
    found = find_adapter(store, settings.start_from)
    if wrong := continuation_mistakes(store.manifest(found), variant, settings, model):
        raise ReseedError(mistake_list(f"start from {found}", wrong))
    return found


def continuation_mistakes(manifest: Manifest, variant: str, settings: TrainingSettings, model: ModelSpec) -> list[str]:
    """Why a variant cannot continue a stored adapter, as lines that begin with a key."""
    own = settings.model_dump(mode="json")
    defaults = TrainingSettings().model_dump(mode="json")  # an older run may not have known all of them
    before = defaults | manifest.spec["training"]
    wrong = [
        f"variants.{variant}.training.{field}: {own[field]!r}, but the stored adapter has {before[field]!r}; "
        "an adapter keeps its shape"
        for field in SHAPE
        if own[field] != before[field]
    ]
    if settings.keep_optimizer and not before["keep_optimizer"]:
        wrong.append(
            f"variants.{variant}.training.keep_optimizer: the stored adapter has no optimiser state; leave it out"
        )
    base, known = identity(model), manifest.spec["model"]
    if "@" not in str(known.get("name")):  # of a version of reseed that did not ask for the commit
        base = {**base, "name": str(base["name"]).partition("@")[0]}
    wrong += [
        f"variants.{variant}: its model's {part} is {base.get(part)!r}, and the stored adapter was trained on "
        f"{known.get(part)!r}; take the same model"
        for part in ("name", "upcycle")
        if base.get(part) != known.get(part)
    ]
    return wrong


def partitions_behind(store: ArtifactStore, adapter: Artifact) -> Iterator[Artifact]:
    """The partitions that a stored adapter and those that it continued were trained on, newest first."""
    inputs = store.manifest(adapter).inputs
    yield Artifact(*inputs["partition"].split("/"))
    if "start" in inputs:
        yield from partitions_behind(store, Artifact(*inputs["start"].split("/")))
