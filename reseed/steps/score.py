"""Score and report: answers become a result, and the result becomes pages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from reseed.evaluation.experiment import KIND, Asked, evaluate, load_results, save_results
from reseed.evaluation.score_table import FILE, save_scores
from reseed.models.names import identity
from reseed.problems import problem_identity
from reseed.records import Artifact, Member
from reseed.reporting.html import html_report
from reseed.reporting.markdown import markdown_report
from reseed.store.artifacts import ArtifactStore
from reseed.store.step import Metrics, Step


@dataclass(frozen=True)
class Score:
    """The result: the scores of all members, ensembles and constants. Its inputs are the direct sources of every number."""

    verb: ClassVar[str] = "score"
    version: ClassVar[int] = 5
    kind: ClassVar[str] = KIND
    on_ray: ClassVar[bool] = True  # the embedder runs where there is room for it
    asked: Asked  # its members are in the key as the inputs' names
    variants: tuple[str, ...]  # in the recipe's order

    def spec(self) -> dict[str, Any]:
        """What the key holds."""
        asked = self.asked
        return {
            "problem": problem_identity(asked.problem),
            "question": asked.question,
            "embedder": identity(asked.embedder),
            "constants": list(asked.constants),
            "variants": list(self.variants),
            "baseline": asked.baseline,
            "delta": asked.delta,
            **({"look": [asked.look.before, asked.look.most]} if asked.look is not None else {}),
            **({"split": [asked.split.seed, asked.split.of]} if asked.split is not None else {}),
        }

    def make(self, step: Step[Any], store: ArtifactStore, folder: Path) -> Metrics:
        """Write `results.json` and the rows' scores."""
        results, table = evaluate(store, self.asked, step.inputs, step.name)
        save_results(results, folder / "results.json")
        save_scores(table, folder / FILE)
        return {"untrained": results.untrained, "ensemble": results.variants[0].ensemble}

    def summary(self, metrics: Metrics) -> str:
        """The outcome in a few words."""
        return f"ensemble {metrics['ensemble']:.4f}, untrained {metrics['untrained']:.4f}"


def score_inputs(
    partitions: Mapping[str, Artifact],
    adapters: Mapping[Member, Artifact],
    predictions: Mapping[Member | None, Artifact],
    ensembles: Mapping[str, Artifact],
    before: Artifact | None = None,
) -> dict[str, Artifact]:
    """The inputs of a result, under the names that `Evidence` expects. `before` is that of the look or the split before."""
    inputs = {f"partition {name}": made for name, made in partitions.items()}
    inputs |= {f"adapter {member}": made for member, made in adapters.items()}
    inputs |= {f"predictions {member or 'untrained'}": made for member, made in predictions.items()}
    inputs |= {f"ensemble {name}": made for name, made in ensembles.items()}
    return inputs | ({"results before": before} if before is not None else {})


@dataclass(frozen=True)
class Report:
    """The pages of a result. A higher version of this verb makes them anew without scoring again."""

    verb: ClassVar[str] = "report"
    version: ClassVar[int] = 3
    kind: ClassVar[str] = "report"
    on_ray: ClassVar[bool] = False

    def spec(self) -> dict[str, Any]:
        """What the key holds: nothing, since a page shows only what is in the result."""
        return {}

    def make(self, step: Step[Any], store: ArtifactStore, folder: Path) -> Metrics:
        """Write `report.md` and `report.html`."""
        results = load_results(store, step.inputs["results"])
        (folder / "report.md").write_text(markdown_report(results), encoding="utf-8")
        (folder / "report.html").write_text(html_report(results), encoding="utf-8")
        return {}

    def summary(self, metrics: Metrics) -> str:
        """The outcome in a few words."""
        return "report.md and report.html"


def report_step(results: Artifact) -> Step[Report]:
    """The step that makes a stored result's pages."""
    return Step(Report(), results.name, {"results": results})
