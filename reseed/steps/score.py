"""Score and report: answers become a result, and a result becomes pages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from reseed.evaluation.experiment import KIND, Evidence, evaluate, load_results, save_results
from reseed.models.names import ModelSpec, identity
from reseed.problems import ProblemModule, problem_identity
from reseed.records import Artifact, Member
from reseed.reporting.html import html_report
from reseed.reporting.markdown import markdown_report
from reseed.store.artifacts import ArtifactStore
from reseed.store.step import Metrics, Step


@dataclass(frozen=True)
class Score:
    """The result: scores of every member, ensemble and constant. Its inputs are all that a number in it came from, at
    first hand."""

    verb: ClassVar[str] = "score"
    version: ClassVar[int] = 3
    kind: ClassVar[str] = KIND
    on_ray: ClassVar[bool] = True  # the embedder runs where there is room for it
    problem: ProblemModule
    question: str
    embedder: ModelSpec
    constants: tuple[str, ...]
    variants: tuple[str, ...]  # their order, and which is compared with the untrained student
    baseline: str | None
    members: tuple[Member, ...]  # of which there are answers; in the key by the names of the inputs

    def spec(self) -> dict[str, Any]:
        """What the key holds."""
        return {
            "problem": problem_identity(self.problem),
            "question": self.question,
            "embedder": identity(self.embedder),
            "constants": list(self.constants),
            "variants": list(self.variants),
            "baseline": self.baseline,
        }

    def make(self, step: Step[Any], store: ArtifactStore, folder: Path) -> Metrics:
        """`results.json`."""
        evidence = Evidence(self.problem, self.embedder, self.constants, self.members, step.inputs)
        results = evaluate(store, evidence, step.name, self.question)
        save_results(results, folder / "results.json")
        return {"untrained": results.untrained, "ensemble": results.variants[0].ensemble}

    def summary(self, metrics: Metrics) -> str:
        """What came out."""
        return f"ensemble {metrics['ensemble']:.4f}, untrained {metrics['untrained']:.4f}"


def score_inputs(
    partitions: Mapping[str, Artifact],
    adapters: Mapping[Member, Artifact],
    predictions: Mapping[Member | None, Artifact],
    ensembles: Mapping[str, Artifact],
) -> dict[str, Artifact]:
    """The inputs of a result under the names that `Evidence` looks for."""
    inputs = {f"partition {name}": made for name, made in partitions.items()}
    inputs |= {f"adapter {member}": made for member, made in adapters.items()}
    inputs |= {f"predictions {member or 'untrained'}": made for member, made in predictions.items()}
    return inputs | {f"ensemble {name}": made for name, made in ensembles.items()}


@dataclass(frozen=True)
class Report:
    """The pages of a result: made again, without scoring again, where reseed has learnt to write better ones."""

    verb: ClassVar[str] = "report"
    version: ClassVar[int] = 1
    kind: ClassVar[str] = "report"
    on_ray: ClassVar[bool] = False

    def spec(self) -> dict[str, Any]:
        """What the key holds: nothing but what the result says is on a page."""
        return {}

    def make(self, step: Step[Any], store: ArtifactStore, folder: Path) -> Metrics:
        """`report.md` and `report.html`."""
        results = load_results(store, step.inputs["results"])
        (folder / "report.md").write_text(markdown_report(results), encoding="utf-8")
        (folder / "report.html").write_text(html_report(results), encoding="utf-8")
        return {}

    def summary(self, metrics: Metrics) -> str:
        """What came out."""
        return "report.md and report.html"


def report_step(results: Artifact) -> Step[Report]:
    """The pages of a stored result."""
    return Step(Report(), results.name, {"results": results})
