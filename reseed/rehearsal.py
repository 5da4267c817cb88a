"""Planning's last look: the recipe's problem is called once on a row of its own source, with an invented answer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import islice

from reseed.data.partition import check_column
from reseed.data.readers import Record, read_records
from reseed.data.sources import Source, as_rows, check_columns
from reseed.generation.pairs import draw_pairs
from reseed.line import Line
from reseed.problems import INVENTED, Problem, dry_call, load_problem
from reseed.recipe.recipe import Variant
from reseed.records import ReseedError, Row
from reseed.store.artifacts import ArtifactStore

HEAD = 20  # rows at the beginning of a source, of which the first that is not refused is tried


def rehearse(line: Line) -> list[str]:
    """Raise ReseedError with all that the problem does wrong or lacks; return what is doubtful.

    A source whose rows are not on this machine yet, on the hub or in a store on S3, is stood in for by an invented row.
    """
    problem, recipe = load_problem(line.recipe.problem), line.recipe
    said: list[str] = []
    by_source: dict[tuple[Source | None, str], list[Variant]] = {}
    for name, variant in line.variants.items():
        by_source.setdefault((line.source_of(name), str(variant.data.columns)), []).append(variant)
    for (source, _), (variant, *others) in by_source.items():
        pair = draw_pairs(variant.generation)[0] if source is None and variant.generation else None
        if pair is not None:
            said += dry_call(problem, pair=(pair.source, pair.instruction))
            rows = [problem.row(pair.source, pair.instruction, INVENTED)]  # which the dry call has tried
        else:
            rows = head(source, variant, problem, line.store) if source is not None else []
            said += dry_call(problem, rows)
        check_groups([variant, *others], rows)
        kept = [row for row in rows if problem.refuse(row) is None][:1]
        for own in different_problems([variant, *others], problem, rows):
            said += dry_call(own, kept, invented=pair is not None)
    if problem.votes and recipe.seeds.most > 1:
        said.append(
            f"problem '{problem.name}' has no blend, so its ensembles answer what most of the {recipe.seeds.most} seeds "
            "answer, and where all differ what the first one does; add blend(answers) if answers are free text"
        )
    return list(dict.fromkeys(said))


def different_problems(variants: Sequence[Variant], shared: Problem, rows: Sequence[Row]) -> list[Problem]:
    """The problems of variants that are asked in another way, with what a run takes from the shared one in its place.

    Raises ReseedError for one that is scored in another way, or needs columns that its rows will not have.
    """
    own = [load_problem(module) for module in dict.fromkeys(variant.problem for variant in variants)]
    columns = [*shared.columns, *(rows[0] if rows else ())]
    for problem in own:
        if lacking := [column for column in problem.columns if column not in columns]:
            raise ReseedError(
                f"problem '{problem.name}' of a variant: it needs {', '.join(lacking)}, but its rows are those of the recipe's "
                f"problem '{shared.name}', which have {', '.join(shared.columns)}; let '{shared.name}' name all columns"
            )
        if (problem.metric, problem.higher_is_better) != (shared.metric, shared.higher_is_better):
            raise ReseedError(
                f"problem '{problem.name}' of a variant: its metric is {direction(problem)}, the recipe's is "
                f"{direction(shared)}; variants are compared by one metric, so take metric and scores from '{shared.name}'"
            )
    from_shared = {part: getattr(shared, part) for part in ("columns", "refuse", "scores", "blend")}
    return [replace(problem, **from_shared) for problem in own if problem.name != shared.name]


def direction(problem: Problem) -> str:
    """A metric's name, and which way it improves."""
    return f"{problem.metric} ({'higher' if problem.higher_is_better else 'lower'} is better)"


def check_groups(variants: Sequence[Variant], rows: Sequence[Row]) -> None:
    """Refuse variants that hold out groups of a column which the rows of their source do not have."""
    columns = list(rows[0]) if rows else []
    for variant in variants:
        check_column(columns, variant.data.test.group_by, "data.test.group_by")
        check_column(columns, variant.data.validation.group_by, "data.validation.group_by")


def head(source: Source, variant: Variant, problem: Problem, store: ArtifactStore) -> list[Row]:
    """The first rows of a source, none if they are not at hand. A column that is not there is an error."""
    if source.files:
        heads = [
            list(as_rows(first_records(read_records(path, name)), problem, name, variant.data.columns))
            for path, name in source.shown_files()
        ]
        return heads[0]
    if source.artifact is None or not store.local:
        return []
    records = first_records(read_records(next(store.fetch(source.artifact).glob("rows.*")), source.given))
    check_columns(records[0] if records else None, problem, source.given)
    return [dict(record) for record in records]


def first_records(records: Iterable[Record]) -> list[Record]:
    """The first records; no more of a file is read than its kind asks for."""
    return list(islice(records, HEAD))
