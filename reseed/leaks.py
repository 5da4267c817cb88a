"""Leaks between stages: rows that a variant is judged by, and that an earlier stage was trained on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from reseed.data.rows import open_rows
from reseed.recipe.recipe import Variant
from reseed.recipe.stages import stages
from reseed.records import Artifact, ReseedError
from reseed.settings import is_stored
from reseed.steps.stored_adapters import find_adapter, partitions_behind
from reseed.store.artifacts import ArtifactStore


def refuse_leaks(store: ArtifactStore, variants: Mapping[str, Variant], partitions: Mapping[str, Artifact]) -> None:
    """Refuse a variant whose validation or test rows, or others of their groups, an earlier stage was trained on."""
    for name, variant in variants.items():
        for before, earlier in earlier_partitions(store, stages(variants, name)[1:], partitions):
            if earlier.key == partitions[name].key:
                continue
            seen = open_rows(store.fetch(earlier), "train")
            ids = set(seen.column("id"))
            for part, how in (("validation", variant.data.validation), ("test", variant.data.test)):
                rows = open_rows(store.fetch(partitions[name]), part)
                groups = set(seen.column(how.group_by)) if how.group_by in seen.columns else set()
                if known := [row for row in rows if row["id"] in ids or row[how.group_by] in groups]:
                    raise ReseedError(
                        f"variant '{name}': {len(known)} of its {len(rows)} {part} rows are, or share {how.group_by} "
                        f"with, rows that '{before}', where it starts, is trained on, as row {known[0]['id']}; "
                        + ("hold out others" if is_stored(before) else f"take them out of the rows of '{before}'")
                    )


def earlier_partitions(
    store: ArtifactStore, before: list[str], partitions: Mapping[str, Artifact]
) -> Iterator[tuple[str, Artifact]]:
    """The partitions of the stages `before`, with their names; of a stored adapter all that it ever continued."""
    for name in before:
        if is_stored(name):
            yield from ((name, behind) for behind in partitions_behind(store, find_adapter(store, name)))
        else:
            yield name, partitions[name]
