"""Recipes and profiles as plain values: YAML files, `a.b=c` overrides, and merging them."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from reseed.credentials import without_credentials
from reseed.records import ReseedError


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file that holds a mapping."""
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), Loader=OnceLoader)
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise ReseedError(f"{path}: not readable as YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise ReseedError(f"{path}: wanted a mapping of keys, saw {type(values).__name__}")
    return values


class OnceLoader(yaml.SafeLoader):
    """Refuses duplicate keys, such as two variants of one name: YAML would silently drop the first."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """The mapping, if all its keys differ."""
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            if key.value in seen:
                twice = f"the key '{key.value}' occurs twice"
                raise yaml.constructor.ConstructorError(None, None, twice, key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def parse_override(text: str) -> dict[str, Any]:
    """`a.b=c` as a nested mapping. The value is read as YAML: 3 is a number and [1, 2] a list."""
    key, equals, value = text.partition("=")
    parts = [part.strip() for part in key.split(".")]
    if not equals or not all(parts):
        raise ReseedError(f"--set {without_credentials(text)}: wanted key=value, as in --set training.epochs=2")
    try:
        nested: Any = yaml.load(value, Loader=OnceLoader)
    except yaml.YAMLError as error:
        said = without_credentials(f"--set {text}: the value is not readable as YAML: {' '.join(str(error).split())}")
        raise ReseedError(said) from error
    for part in reversed(parts):
        nested = {part: nested}
    return dict(nested)


def merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """A copy of `base` with the values of `over`, merged section by section."""
    merged = dict(base)
    for key, value in over.items():
        if isinstance(value, dict) and isinstance(base.get(key), dict):
            merged[key] = merge(base[key], value)
        else:
            merged[key] = value
    return merged
