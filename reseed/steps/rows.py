"""Import, curate, partition: from a source's rows to those that are trained on, chosen by and scored."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

from reseed.data.curation import curate
from reseed.data.partition import partition
from reseed.data.rows import open_rows, write_rows
from reseed.data.sources import Source, read_source
from reseed.data.statistics import dataset_stats
from reseed.models.cache import tokenizer_folder
from reseed.models.names import ModelSpec, identity
from reseed.models.tokenizers import load_tokenizer
from reseed.problems import ProblemModule, load_problem, problem_identity
from reseed.settings import DataSettings
from reseed.store.artifacts import ArtifactStore
from reseed.store.step import Metrics, Step

PARTS = ("train", "validation", "test")


@dataclass(frozen=True)
class Import:
    """The rows of a source that exists. Only its content counts: a file that moved is the same source."""

    verb: ClassVar[str] = "import"
    version: ClassVar[int] = 1
    kind: ClassVar[str] = "rows"
    on_ray: ClassVar[bool] = False
    problem: ProblemModule
    source: Source
    columns: Mapping[str, str] | None

    def spec(self) -> dict[str, Any]:
        """What the key holds."""
        return {"problem": problem_identity(self.problem), "content": self.source.content, "columns": self.columns}

    def make(self, step: Step[Any], store: ArtifactStore, folder: Path) -> Metrics:
        """`rows.parquet`."""
        rows = read_source(self.source, store, load_problem(self.problem), self.columns)
        return {"rows": write_rows(folder / "rows.parquet", rows), "source": Path(self.source.given).name}

    def summary(self, metrics: Metrics) -> str:
        """What came out."""
        return f"{metrics['rows']} rows"


@dataclass(frozen=True)
class Curate:
    """The rows that are fit to train on. The dataset table counts in the student's tokens."""

    verb: ClassVar[str] = "curate"
    version: ClassVar[int] = 1
    kind: ClassVar[str] = "curated"
    on_ray: ClassVar[bool] = False
    problem: ProblemModule
    student: ModelSpec

    def spec(self) -> dict[str, Any]:
        """What the key holds."""
        return {"problem": problem_identity(self.problem), "tokenizer": identity(self.student)["name"]}

    def make(self, step: Step[Any], store: ArtifactStore, folder: Path) -> Metrics:
        """`rows.parquet`; the metrics are the dataset table and what was dropped."""
        problem, dropped = load_problem(self.problem), Counter[str]()
        raw = open_rows(store.fetch(step.inputs["rows"]))
        write_rows(folder / "rows.parquet", curate(raw, problem, dropped))
        tokenizer = load_tokenizer(tokenizer_folder(self.student))
        return asdict(dataset_stats(open_rows(folder), problem, tokenizer, dict(sorted(dropped.items()))))

    def summary(self, metrics: Metrics) -> str:
        """What came out."""
        dropped = metrics["dropped"]
        return f"{metrics['n']} of {metrics['n'] + sum(dropped.values())} rows kept, dropped: {dropped or 'none'}"


@dataclass(frozen=True)
class Partition:
    """Train, validation and test rows."""

    verb: ClassVar[str] = "partition"
    version: ClassVar[int] = 2
    kind: ClassVar[str] = "partition"
    on_ray: ClassVar[bool] = False
    settings: DataSettings

    def spec(self) -> dict[str, Any]:
        """What the key holds."""
        return self.settings.model_dump(exclude={"train", "config", "split", "columns", "seed"})

    def make(self, step: Step[Any], store: ArtifactStore, folder: Path) -> Metrics:
        """`train.parquet`, `validation.parquet`, `test.parquet`."""
        parts = partition(open_rows(store.fetch(step.inputs["curated"])), self.settings)
        return {name: write_rows(folder / f"{name}.parquet", getattr(parts, name)) for name in PARTS}

    def summary(self, metrics: Metrics) -> str:
        """What came out."""
        return ", ".join(f"{metrics[name]} {name}" for name in PARTS)
