"""Planning's last look: the recipe's problem is called once on a row of its own source, with an invented answer."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from reseed.data.partition import check_column
from reseed.data.sources import as_rows, check_columns, draw_pairs, read_file, resolve_source
from reseed.problems import INVENTED, Problem, dry_call, load_problem
from reseed.recipe.recipe import Recipe, Variant
from reseed.recipe.stages import variants_of
from reseed.records import Row
from reseed.store.artifacts import ArtifactStore

UNREADABLE = (csv.Error, ValueError, OSError, StopIteration, RecursionError)  # also files of a kind that is not read
HEAD = 20  # rows at the beginning of a source, of which the first that is not refused is tried


def rehearse(recipe: Recipe, store: ArtifactStore) -> list[str]:
    """Raise ReseedError with all that the problem does wrong or lacks; return what is worth a word.

    Nothing is fetched: a source that is not at hand is stood in for by an invented row.
    """
    problem = load_problem(recipe.problem)
    said: list[str] = []
    by_source: dict[tuple[str | None, str], list[Variant]] = {}
    for variant in variants_of(recipe).values():
        by_source.setdefault((variant.data.train, str(variant.data.columns)), []).append(variant)
    for variant, *others in by_source.values():
        pair = draw_pairs(variant.generation)[0] if variant.data.train is None and variant.generation else None
        if pair is not None:
            said += dry_call(problem, pair=(pair.source, pair.instruction))
            rows = [problem.row(pair.source, pair.instruction, INVENTED)]  # which the dry call has tried
        else:
            rows = head(variant, problem, store)
            said += dry_call(problem, rows)
        check_groups([variant, *others], rows)
    if problem.votes and len(recipe.seeds) > 1:
        said.append(
            f"problem '{problem.name}' has no blend, so its ensembles answer what most of the {len(recipe.seeds)} seeds "
            "answer, and where all differ what the first one does; add blend(answers) if answers are free text"
        )
    return list(dict.fromkeys(said))


def check_groups(variants: Sequence[Variant], rows: list[Row]) -> None:
    """Refuse variants that hold out groups of a column which the rows of their source do not have."""
    for variant in variants:
        check_column(rows, variant.data.test.group_by, "data.test.group_by")
        check_column(rows, variant.data.validation.group_by, "data.validation.group_by")


def head(variant: Variant, problem: Problem, store: ArtifactStore) -> list[Row]:
    """The first rows of a variant's source, none if they are not at hand. A column that is not there is an error."""
    given = variant.data.train or ""
    path = Path(given).expanduser()
    if path.is_file():
        records = first_records(path)
        return [] if records is None else as_rows(records, problem, given, variant.data.columns)
    artifact = resolve_source(given, store).artifact
    if artifact is None or not store.local:
        return []
    records = first_records(next(store.fetch(artifact).glob("rows.*")))
    if records is None:
        return []
    check_columns(records, problem, given)
    return [dict(record) for record in records]


def first_records(path: Path) -> list[Mapping[str, Any]] | None:
    """The first records of a file, without reading more of it than its kind asks for; None for one that cannot be read,
    of which the import tells more."""
    try:
        found = list(read_head(path))
    except UNREADABLE:
        return None
    return found if all(isinstance(record, dict) for record in found) else None


def read_head(path: Path) -> Iterable[Any]:
    """The first records, whatever they are."""
    if path.suffix == ".parquet":
        from pyarrow.parquet import ParquetFile

        return list(next(ParquetFile(path).iter_batches(batch_size=HEAD)).to_pylist())
    if path.suffix == ".json":
        return list(read_file(path, ".json")[:HEAD])
    with path.open(encoding="utf-8-sig", newline="") as file:
        if path.suffix == ".csv":
            return list(islice(csv.DictReader(file, strict=True), HEAD))
        return [json.loads(line) for line in islice(file, HEAD) if line.strip()]
