"""Generate: prompts × passages through a pool of engines, in shards that are each committed when done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

from reseed.data.rows import open_rows, write_rows
from reseed.files import digest
from reseed.generation.engine import Batch
from reseed.generation.pairs import Pair
from reseed.language.prompts import RENDERING
from reseed.models.names import ModelSpec, attention_mark, identity
from reseed.problems import ProblemModule, load_problem, problem_identity
from reseed.records import Generation, Prompt, Sampling
from reseed.store.artifacts import ArtifactStore
from reseed.store.step import Metrics, Step


@dataclass(frozen=True)
class WriteShard:
    """The rows that a generator makes of some pairs. How the model's chat template is used is in the key; the template
    itself is a part of the model."""

    verb: ClassVar[str] = "generate"
    version: ClassVar[int] = 1
    kind: ClassVar[str] = "shard"
    problem: ProblemModule
    engine: ModelSpec
    sampling: Sampling
    batch_size: int  # sampled text depends on which rows share a batch
    number: int
    pairs: tuple[Pair, ...]

    def spec(self) -> dict[str, Any]:
        """What the key holds."""
        return {
            "problem": problem_identity(self.problem),
            "model": identity(self.engine),
            "rendering": RENDERING,
            "sampling": asdict(self.sampling),
            "batch_size": self.batch_size,
            "shard": self.number,
            "pairs": digest([pair.id for pair in self.pairs]),
            **attention_mark(self.engine),
        }

    def batches(self, step: Step[Any], store: ArtifactStore) -> Sequence[Batch]:
        """All pairs at once."""
        problem = load_problem(self.problem)
        prompts = tuple(Prompt(pair.id, problem.request(pair.source, pair.instruction)) for pair in self.pairs)
        seed = (step.seed or 0) + 1_000_003 * self.number
        return [Batch(step.artifact.key, self.sampling, seed, prompts, chat=True)]

    def keep(self, answers: Sequence[Generation], folder: Path) -> Metrics:
        """`rows.parquet`, in the order of the pairs, each row with how its generation ended."""
        problem, given = load_problem(self.problem), {answer.id: answer for answer in answers}
        rows = []
        for pair in self.pairs:
            answer = given[pair.id]
            row = problem.row(pair.source, pair.instruction, answer.text)
            rows.append({**row, "finish": answer.finish, "tokens": str(answer.tokens)})
        return {"rows": write_rows(folder / "rows.parquet", rows)}

    def summary(self, metrics: Metrics) -> str:
        """What came out."""
        return f"{metrics['rows']} rows"


@dataclass(frozen=True)
class JoinShards:
    """All shards' rows together: the raw synthetic rows of a recipe."""

    verb: ClassVar[str] = "generate"
    version: ClassVar[int] = 1
    kind: ClassVar[str] = "rows"
    on_ray: ClassVar[bool] = False
    problem: ProblemModule

    def spec(self) -> dict[str, Any]:
        """What the key holds."""
        return {"problem": problem_identity(self.problem)}

    def make(self, step: Step[Any], store: ArtifactStore, folder: Path) -> Metrics:
        """`rows.parquet`, in the order of the shards."""
        shards = [open_rows(store.fetch(shard)) for shard in step.inputs.values()]
        rows = write_rows(folder / "rows.parquet", chain.from_iterable(shards))
        return {"rows": rows, "tokens": sum(int(count) for shard in shards for count in shard.column("tokens"))}

    def summary(self, metrics: Metrics) -> str:
        """What came out."""
        return f"{metrics['rows']} rows, {metrics['tokens']} tokens"
