"""What this machine and a profile can do, what is missing, and whether stored files are still what was written."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from reseed.files import cache_root, file_digest
from reseed.models.configs import config_here
from reseed.models.names import ModelSpec, cpu_dtype, is_local, parse_wheel
from reseed.recipe.profile import Profile
from reseed.records import ReseedError
from reseed.store.artifacts import ArtifactStore
from reseed.store.errors import explained
from reseed.store.manifest import OWN_FOLDERS, Manifest, again, listed_files, read_manifest
from reseed.store.objects import Objects
from reseed.store.provenance import PACKAGES, package_versions
from reseed.store.verified import fault, faults, model_faults, model_sums

PYTHONS = ((3, 11), (3, 12))
GIB = 1 << 30


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's report. A `fix` means that something is wrong."""

    thing: str
    state: str
    fix: str = ""


def examine(profile: Profile) -> Iterator[Finding]:
    """Examine this machine and what the profile names. Nothing is fetched."""
    wrong = "" if sys.version_info[:2] in PYTHONS else "take Python 3.11 or 3.12"
    yield Finding("python", platform.python_version(), wrong)
    versions = package_versions()
    missing = [name for name in PACKAGES if name not in versions]
    installed = ", ".join(f"{name} {version}" for name, version in versions.items())
    yield Finding(
        "packages", installed, f"{', '.join(missing)} missing: pip install -r requirements.lock" if missing else ""
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB
    cores = f"{len(os.sched_getaffinity(0))} cores, which compute best in {cpu_dtype()}"
    yield Finding("machine", f"{cores}, {memory:.0f} GiB of memory")
    yield find_gpus(profile)
    yield check_cache()
    yield from check_store(profile)
    roles = profile.roles
    for role, spec in (("generator", roles.generator), ("student", roles.student), ("embedder", roles.embedder)):
        if spec is not None:
            yield find_model(role, spec, profile)


def find_gpus(profile: Profile) -> Finding:
    """The cards that torch sees, and whether the profile asks for one."""
    import torch

    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    wanted = profile.training.gpus > 0 or profile.engines.gpus > 0
    fix = f"profile '{profile.name}' asks for one: run where there is one, or --profile laptop"
    return Finding("gpu", ", ".join(names) or "none", fix if wanted and not names else "")


def check_cache() -> Finding:
    """The model cache: can it be written to, and how much room is there?"""
    root = cache_root()
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=root):
            pass
    except OSError as error:
        return Finding("cache", f"{root}: {error.strerror}", "set RESEED_CACHE to a folder that you may write")
    return Finding("cache", f"{root}, {shutil.disk_usage(root).free / GIB:.0f} GiB free")


def check_store(profile: Profile) -> Iterator[Finding]:
    """The store: does it answer, and can it be written to?"""
    probe = f"scratch/doctor-{uuid.uuid4().hex[:12]}"
    try:
        store = ArtifactStore(profile.store)
        with explained(store.url):
            store.objects.create(f"{probe}/probe", b"reseed doctor")
            store.objects.remove(probe)
    except ReseedError as error:
        yield Finding("store", "cannot be used", str(error))
        return
    free = f", {shutil.disk_usage(store.root).free / GIB:.0f} GiB free" if store.local else ""
    yield Finding("store", f"{store.url}, can be written{free}")


def find_model(role: str, spec: ModelSpec, profile: Profile) -> Finding:
    """A model: is it on this machine, or still to be fetched?"""
    if is_local(spec.name):
        there = Path(spec.name).expanduser().is_dir()
        return Finding(role, spec.name, "" if there else "no such folder; mend the profile")
    if wheel := parse_wheel(spec.name):
        there = (cache_root() / "models" / f"{wheel.package}-{wheel.version}").is_dir()
    else:
        there = hub_folder(spec.name) is not None
    later = f"to be fetched, by `reseed fetch --profile {profile.name}` or by the first run"
    return Finding(role, f"{spec.name}: {'in the cache' if there else later}")


def hub_folder(name: str) -> Path | None:
    """The folder of a hub model's weights, if huggingface_hub has them."""
    path = config_here(name)
    return path.parent if path is not None and any(path.parent.rglob("*.safetensors")) else None


def verify(profile: Profile) -> Iterator[Finding]:
    """Hash every file of every artifact and model, whether or not it was hashed before, and name those that changed."""
    yield from verify_store(ArtifactStore(profile.store))
    models = cache_root() / "models"
    for folder in sorted(path for path in models.glob("*") if path.is_dir() and not path.name.startswith(".")):
        if model_sums(folder) is None:
            yield Finding(f"model {folder.name}", "has no checksums, so it cannot be compared")
            continue
        lines = model_faults(folder, whole=True)
        yield Finding(f"model {folder.name}", "; ".join(lines) or "whole", f"remove {folder}" if lines else "")
    for spec in (profile.roles.generator, profile.roles.student, profile.roles.embedder):
        if spec is not None and not is_local(spec.name) and not parse_wheel(spec.name):
            yield from verify_hub(spec.name)


def verify_store(store: ArtifactStore) -> Iterator[Finding]:
    """A finding for each damaged artifact, then one with how many were compared."""
    whole = size = 0
    with explained(store.url):
        kinds = [kind for kind in store.objects.names("") if kind not in OWN_FOLDERS]
        contents = {p: c for kind in kinds for p, c in store.objects.find(f"{kind}/*/*/manifest.json").items()}
    for path, content in contents.items():
        try:
            manifest = read_manifest(store.url, path, content)
        except ReseedError as error:
            yield Finding(path, "damaged", str(error))
            continue
        with explained(store.url):
            lines = damage(store, manifest)
        if lines:
            yield Finding(manifest.artifact.path, "; ".join(lines), again(manifest.artifact))
        else:
            whole, size = whole + 1, size + sum(file.size for file in manifest.files)
    yield Finding("store", f"{whole} of {len(contents)} artifacts are whole, {size / GIB:.1f} GiB were hashed")


def damage(store: ArtifactStore, manifest: Manifest) -> list[str]:
    """What is wrong with an artifact's files; those on S3 are copied one at a time."""
    files = listed_files(manifest.files)
    if store.local:
        folder = Path(store.root) / manifest.place
        return faults(folder, files, anew=True) if files else []
    lines = []
    with tempfile.TemporaryDirectory() as place:
        for number, (path, (size, sha256)) in enumerate(files.items()):
            copy = Path(place) / str(number)
            wrong = copy_object(store.objects, f"{manifest.place}/{path}", copy) or fault(
                Path(place), copy.name, size, sha256
            )
            copy.unlink(missing_ok=True)
            lines += [f"{path}: {wrong}"] if wrong else []
    return lines


def copy_object(objects: Objects, path: str, copy: Path) -> str | None:
    """Copy an object to a file; return what is wrong if there is none."""
    try:
        objects.get(path, copy)
    except FileNotFoundError:
        return "is missing"
    return None


def verify_hub(name: str) -> Iterator[Finding]:
    """Compare a hub model's large files, which huggingface_hub names by their SHA-256."""
    folder = hub_folder(name)
    if folder is None:
        return
    lines = []
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        with suppress(OSError):
            sha256 = file.resolve().name
            if len(sha256) == 64 and file_digest(file) != sha256:
                lines.append(f"{file.relative_to(folder)}: its SHA-256 is not {sha256[:12]}…")
    yield Finding(f"model {name}", "; ".join(lines) or "whole", f"remove {folder.parent.parent}" if lines else "")
