"""What a plan should say beside its steps: what is doubtful, and what is easily overlooked."""

from __future__ import annotations

from reseed.line import Line

NO_DELTA = (
    "the recipe compares variants but has no `delta`, the smallest difference that matters to you; without one no result "
    "can say that there is no difference"
)


def notes_of(line: Line) -> list[str]:
    """What is doubtful about the sources, the models and the comparison."""
    sources = [source for name in line.variants if (source := line.source_of(name)) is not None]
    notes = list(dict.fromkeys(source.note for source in sources if source.note))
    notes += [
        f"model '{name}': the hub cannot be reached, and its commit was never looked up on this machine; a real run will "
        "have other keys"
        for name in line.unpinned
    ]
    if line.recipe.splits:
        notes.append(f"{len(line.recipe.splits)} splits of the rows: all members are trained on each of them")
    if seeds := line.recipe.seeds.looks[1:]:
        notes.append(
            f"{len(line.recipe.seeds)} seeds to begin with, judged more strictly than a list would be; `reseed run "
            f"--until-decided` adds seeds at {', '.join(map(str, seeds))} until the question is decided"
        )
    return notes + ([NO_DELTA] if len(line.scored) > 1 and line.recipe.delta is None else [])
