"""Datasets of the hub, by the commit that their name means when a run is planned."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from reseed.data.readers import FILE_KINDS, Record
from reseed.files import cache_root, digest
from reseed.mistakes import first_line
from reseed.network.commits import commit_of, refusal
from reseed.records import ReseedError


@dataclass(frozen=True)
class HubSplit:
    """A split of a dataset on the hub."""

    repository: str
    commit: str
    config: str | None
    split: str

    @property
    def content(self) -> str:
        """What it is, for a key."""
        config = f":{self.config}" if self.config else ""
        return f"{self.repository}@{self.commit}{config}" + ("" if self.split == "train" else f"[{self.split}]")


def is_hub_id(given: str) -> bool:
    """`owner/name` or `owner/name@revision`, with nothing of that path here and no file's ending."""
    return (
        bool(re.fullmatch(r"[\w.-]+/[\w.-]+(@[\w./-]+)?", given))
        and not Path(given).exists()
        and not given.lower().endswith(FILE_KINDS)
    )


def find_split(given: str, config: str | None, split: str) -> HubSplit:
    """The split that a hub id names today."""
    commit = commit_of(given, "dataset")
    if commit is None:
        raise ReseedError(
            f"data.train: no file '{given}' here, and the hub cannot be asked for a dataset of that name; check the name and "
            "the network, or give a path"
        )
    return HubSplit(given.partition("@")[0], commit, config, split)


def read_split(hub: HubSplit) -> Iterable[Record]:
    """Its records. Without a network they come from the cache, which each commit and config has for itself: `datasets`
    would take whatever it has of that name."""
    from datasets import load_dataset

    own = str(cache_root() / "datasets" / hub.commit / digest(hub.config, 8))
    try:
        found: Iterable[Record] = load_dataset(
            hub.repository, hub.config, split=hub.split, revision=hub.commit, cache_dir=own
        )
    except Exception as error:
        if refused := refusal(error):
            raise ReseedError(f"dataset {hub.content}: {refused}, or give a path") from error
        raise ReseedError(
            f"dataset {hub.content}: the hub did not give it ({type(error).__name__}: {first_line(error)}); check "
            "data.config, data.split and the network, or give a path"
        ) from error
    return found
