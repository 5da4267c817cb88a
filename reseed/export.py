"""Artifacts out of the store, for people without it: an adapter as two files that stock transformers and PEFT load, or
merged into the whole model; answers as a table that says where they came from."""

from __future__ import annotations

import csv
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reseed.evaluation.answers import read_answers
from reseed.files import new_folder
from reseed.models.cache import materialise
from reseed.models.loading import load_model
from reseed.models.names import ModelSpec, identity
from reseed.models.tokenizers import load_tokenizer
from reseed.records import Artifact, ReseedError, run_name
from reseed.reporting.markdown import markdown_table, markdown_text
from reseed.reporting.text import count
from reseed.store.artifacts import ArtifactStore
from reseed.store.lookup import find_artifact

ANSWERS = ("ensemble", "predictions")
SENTENCE = "The most likely text prompt given to transform the original text into the rewritten text was:"


@dataclass(frozen=True)
class Merged:
    """Mean absolute differences of logits on one sentence: what the adapter changes, and what merging it changed."""

    adapter_shift: float
    merge_error: float


def find_exported(store: ArtifactStore, text: str) -> Artifact:
    """What a user asks to export: an adapter, an ensemble, or a member's answers."""
    shown_by = "`reseed results NAME --json` (adapters) or `reseed plan RECIPE` (all)"
    return find_artifact(store, text, ("adapter", *ANSWERS), shown_by)


def export_artifact(store: ArtifactStore, artifact: Artifact, target: Path) -> list[str]:
    """Write the artifact's files into the new folder `target`; return their names."""
    return (export_answers if artifact.kind in ANSWERS else export_adapter)(store, artifact, target)


def export_adapter(store: ArtifactStore, artifact: Artifact, target: Path) -> list[str]:
    """Copy the adapter's two files into the new folder `target`; return their names."""
    check_free(target)
    with new_folder(target) as scratch:
        for path in (store.fetch(artifact) / "adapter").iterdir():
            shutil.copyfile(path, scratch / path.name)
    return sorted(path.name for path in target.iterdir())


def export_answers(store: ArtifactStore, artifact: Artifact, target: Path) -> list[str]:
    """Write the answers of an ensemble or a member by row id, and where they came from, into the new folder `target`."""
    check_free(target)
    answers = read_answers(store, artifact)
    with new_folder(target) as scratch:
        with (scratch / "predictions.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([("id", "answer"), *answers.items()])
        (scratch / "README.md").write_text(lineage(store, artifact, len(answers)), encoding="utf-8")
    return sorted(path.name for path in target.iterdir())


def lineage(store: ArtifactStore, artifact: Artifact, rows: int) -> str:
    """Where answers came from, as Markdown: the members, and the rows that were answered."""
    made, members = store.manifest(artifact), members_of(store, artifact)
    first = store.manifest(next(iter(members.values())))
    blocks = [
        f"# {markdown_text(artifact.path)}",
        f"`predictions.csv` has answers to {count(rows, 'held-out row')} of the problem "
        f"{markdown_text(made.spec['problem'])}; `id` is the row's among the test rows of "
        f"{markdown_text(first.inputs['partition'])}.",
        f"Model: {markdown_text(first.spec['model']['name'])}. Made {markdown_text(made.created)} by reseed "
        f"{markdown_text(made.packages.get('reseed', '?'))}, commit {markdown_text(made.git_commit or 'not known')}.",
        "Blended, row by row, from:" if artifact.kind == "ensemble" else "Answered by:",
        markdown_table(
            ["member", "answers", "adapter", "best step"],
            [list(map(markdown_text, cells_of(store, name, answers))) for name, answers in members.items()],
            texts=(0, 1, 2),
        ),
    ]
    return "\n\n".join(blocks) + "\n"


def members_of(store: ArtifactStore, answers: Artifact) -> dict[str, Artifact]:
    """The answers of each member of an ensemble, in the order of the blend; a member's answers are its own."""
    if answers.kind != "ensemble":
        return {"": answers}
    inputs = store.manifest(answers).inputs
    return {role.removeprefix("predictions "): Artifact(*path.split("/")) for role, path in inputs.items()}


def cells_of(store: ArtifactStore, name: str, answers: Artifact) -> list[str]:
    """A member's row of the table: its name, answers, adapter, and the step that was the best."""
    path = store.manifest(answers).inputs.get("adapter")
    if path is None:
        return ["untrained", answers.path, "none", ""]
    adapter = store.manifest(Artifact(*path.split("/")))
    return [
        name or f"{adapter.name} seed {run_name(adapter.seed or 0, adapter.spec.get('order'))}",
        answers.path,
        path,
        str(adapter.metrics.get("best_step", "")),
    ]


def merge_adapter(store: ArtifactStore, artifact: Artifact, target: Path, base: str | None = None) -> Merged:
    """Write the 16-bit base with the adapter merged into its weights, and its tokenizer, into the new folder `target`.

    Never merged into the 4-bit base: the sum would be rounded to 4 bits again (peft#2321). `base` names the base's
    folder where the store knows it only by its content. Raises ReseedError when the merged model is not the adapted one.
    """
    import torch
    from peft import PeftModel

    if artifact.kind != "adapter":
        raise ReseedError(f"{artifact}: only an adapter has a base that it can be merged into; leave out --merge")
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
