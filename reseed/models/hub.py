"""Models from the hub, in huggingface_hub's own cache. Of a repository's code and pickles nothing is fetched."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

from reseed.mistakes import first_line
from reseed.network.commits import LOG_IN, refusal
from reseed.records import ReseedError

TOKENIZER = ("*.json", "*.model", "*.jinja", "*.txt")
MODEL = (*TOKENIZER, "*.safetensors")


def fetch_model(name: str) -> Path:
    """The folder of a hub id with an optional `@revision`: configuration, tokenizer and safetensors."""
    folder = snapshot(name, MODEL)
    if not any(folder.rglob("*.safetensors")):
        raise ReseedError(
            f"model '{name}': no .safetensors file in {folder}: its repository has none (pickles, .bin, may run code and "
            "are not fetched), or its tokenizer was fetched and now the hub cannot be reached; name a revision that has "
            "them, as in @refs/pr/1, or check the network"
        )
    if (folder / "modules.json").is_file():  # of sentence-transformers
        convert_modules(name, folder)
    return folder


def fetch_tokenizer(name: str) -> Path:
    """The folder of a hub id with its configuration and tokenizer; the weights may be 93 GB more."""
    return snapshot(name, TOKENIZER)


def convert_modules(name: str, folder: Path) -> None:
    """Give modules beside the transformer safetensors: some repositories have pickles only, as sentence-T5's Dense.

    The pickle is read once, with torch's unpickler for tensors alone, which runs no code.
    """
    bare = [path.parent for path in sorted(folder.glob("*/config.json")) if not any(path.parent.glob("*.safetensors"))]
    if not bare:
        return
    commit = f"{name.partition('@')[0]}@{folder.name}"  # the same files, and known without asking the hub again
    snapshot(commit, tuple(f"{module.name}/pytorch_model.bin" for module in bare))
    for module in bare:
        if (module / "pytorch_model.bin").is_file():
            convert(name, module / "pytorch_model.bin", module / "model.safetensors")


def convert(name: str, pickled: Path, target: Path) -> None:
    """Write the tensors of a pickle as safetensors, whole or not at all."""
    from pickle import UnpicklingError

    import torch
    from safetensors.torch import save_file

    try:
        tensors = torch.load(pickled, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise ReseedError(
            f"model '{name}': {pickled.parent.name}/{pickled.name} is a pickle of more than tensors, and is not loaded; "
            "name a revision with safetensors"
        ) from error
    beside = target.with_name(f".{target.name}-{uuid.uuid4().hex[:8]}")
    save_file({key: tensor.clone().contiguous() for key, tensor in tensors.items()}, beside)
    os.replace(beside, target)


def snapshot(name: str, patterns: tuple[str, ...]) -> Path:
    """The files of a repository that match the patterns; what is there already is not fetched again."""
    from huggingface_hub import snapshot_download

    repository, _, revision = name.partition("@")
    try:
        return Path(snapshot_download(repository, revision=revision or None, allow_patterns=list(patterns)))
    except Exception as error:
        if refused := refusal(error):
            raise ReseedError(f"model '{name}': {refused}, or choose --profile laptop, which needs no hub") from error
        raise ReseedError(
            f"model '{name}': not a folder, and the hub did not give it ({type(error).__name__}: {first_line(error)}); "
            f"check the name and the network, {LOG_IN} if it is private, "
            "or choose --profile laptop, which needs no hub"
        ) from error
