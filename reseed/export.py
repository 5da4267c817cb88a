"""Adapters out of the store: two files that stock transformers and PEFT load, or a whole model with them merged in."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reseed.files import new_folder
from reseed.models.cache import materialise
from reseed.models.loading import load_model
from reseed.models.names import ModelSpec, identity
from reseed.models.tokenizers import load_tokenizer
from reseed.records import Artifact, ReseedError
from reseed.store.artifacts import ArtifactStore

SENTENCE = "The most likely text prompt given to transform the original text into the rewritten text was:"


@dataclass(frozen=True)
class Merged:
    """Mean absolute differences of logits on one sentence: what the adapter changes, and what merging it changed."""

    adapter_shift: float
    merge_error: float


def export_adapter(store: ArtifactStore, artifact: Artifact, target: Path) -> list[str]:
    """Copy the adapter's two files into the new folder `target`; return their names."""
    check_free(target)
    with new_folder(target) as scratch:
        for path in (store.fetch(artifact) / "adapter").iterdir():
            shutil.copyfile(path, scratch / path.name)
    return sorted(path.name for path in target.iterdir())


def merge_adapter(store: ArtifactStore, artifact: Artifact, target: Path, base: str | None = None) -> Merged:
    """Write the 16-bit base with the adapter merged into its weights, and its tokenizer, into the new folder `target`.

    Never merged into the 4-bit base: the sum would be rounded to 4 bits again (peft#2321). `base` names the base's
    folder where the store knows it only by its content. Raises ReseedError when the merged model is not the adapted one.
    """
    import torch
    from peft import PeftModel

    check_free(target)
    spec = base_spec(store, artifact, base)
    folder = materialise(spec)
    tokenizer = load_tokenizer(folder)
    ids = tokenizer(SENTENCE, return_tensors="pt").input_ids

    def logits(model: Any) -> torch.Tensor:
        with torch.inference_mode():
            found: torch.Tensor = model.eval()(ids.to(model.device)).logits.float().cpu()
        return found

    model = load_model(folder, spec)
    plain = logits(model)
    adapted_model = PeftModel.from_pretrained(model, store.fetch(artifact) / "adapter")
    adapted = logits(adapted_model)
    merged_model = adapted_model.merge_and_unload()
    merged = logits(merged_model)
    found = Merged(float((adapted - plain).abs().mean()), float((merged - adapted).abs().mean()))
    if not found.merge_error < 0.5 * found.adapter_shift:
        raise ReseedError(
            f"{artifact}: merging changed the logits by {found.merge_error:.2g}, the adapter itself by "
            f"{found.adapter_shift:.2g}; in {spec.dtype} the change is lost, export the adapter without --merge"
        )
    with new_folder(target) as scratch:
        merged_model.save_pretrained(scratch)
        tokenizer.save_pretrained(scratch)
    return found


def base_spec(store: ArtifactStore, artifact: Artifact, base: str | None) -> ModelSpec:
    """The 16-bit model that the adapter was trained on, as its manifest says."""
    trained_on: dict[str, Any] = store.manifest(artifact).spec["model"]
    name = base or trained_on["name"]
    if name.startswith("local:"):
        raise ReseedError(f"{artifact}: its base was a folder of another place; name it with --base FOLDER")
    seen = identity(ModelSpec(name=name))["name"]
    if seen != trained_on["name"]:
        raise ReseedError(f"--base {base}: this is {seen}, and {artifact} was trained on {trained_on['name']}")
    return ModelSpec(name=name, dtype=trained_on["dtype"], upcycle=trained_on.get("upcycle"))


def check_free(target: Path) -> None:
    """Refuse to write over something."""
    if target.exists():
        raise ReseedError(f"{target}: already exists; name a new folder, or remove this one")
