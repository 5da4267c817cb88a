"""The report as Markdown, for GitHub and for Prefect's artifact page."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from reseed.reporting.comparison_plots import forest, noise, power_curve
from reseed.reporting.pictures import markdown_picture
from reseed.reporting.plots import loss_curves, scores
from reseed.reporting.tables import (
    COMPARISON_HEADERS,
    LOOK_HEADERS,
    comparison_cells,
    lines,
    look_cells,
    score_columns,
    split_table,
)
from reseed.reporting.text import count, cut_off, direction, plural_of, score
from reseed.reporting.verdict import (
    HOW_LOOKED,
    HOW_SPLIT,
    how_compared,
    looked,
    noun,
    seed_noise_lines,
    verdict_lines,
    which_split,
)
from reseed.results import DatasetStats, Results
from reseed.text import one_line

Draw = Callable[[str, Callable[[Results], str]], list[str]]  # the blocks of Markdown that show a plot, with its title


def markdown_report(results: Results) -> str:
    """Question, verdict, scores, members and data of one experiment, without pictures: it is read in terminals, too."""
    return _report(results, lambda title, plot: [])


def pictured_report(results: Results) -> str:
    """The same with the plots of the HTML page as images, for the dashboard: some hundred thousand characters."""
    return _report(results, lambda title, plot: [markdown_picture(markdown_text(title), plot(results))])


def _report(results: Results, draw: Draw) -> str:
    blocks = [
        f"# {markdown_text(results.experiment)}",
        f"**Question.** {markdown_text(results.question)}",
        "**Verdict.** " + "  \n".join(markdown_text(line) for line in verdict_lines(results)),
        "## Results",
        _results(results),
        _about(results),
        *draw("Scores", scores),
        *_comparisons(results, draw),
        *_looks(results),
        *_splits(results),
        *_section("Loss curves", loss_curves, draw),
        "## Members",
        _members(results),
    ]
    if results.dataset:
        blocks += ["## Dataset", *_dataset(results.dataset)]
    return "\n\n".join(blocks) + "\n"


def _about(results: Results) -> str:
    trained = f"; trained on {count(results.train_rows, 'row')}" if results.train_rows else ""
    metric = f"{markdown_text(results.metric)}, {direction(results.higher_is_better)}"
    trained += f"; {which_split(results)[0].lower()}{which_split(results)[1:]}" if results.splits else ""
    return f"{metric}; {count(results.rows, 'held-out row')}{trained}; problem {markdown_text(results.problem)}."


def _results(results: Results) -> str:
    table = lines(results)
    headers, cells = score_columns(results, table)
    rows = []
    for line, (*found, answer) in zip(table, cells, strict=True):
        bold = "**" if line.decided else ""
        rows.append([f"{bold}{markdown_text(line.label)}{bold}", *found, f"{bold}{answer}{bold}"])
    return markdown_table(["variant", *headers], rows)


def _comparisons(results: Results, draw: Draw) -> list[str]:
    if not results.comparisons:
        return []
    rows = []
    for found, (names, *cells, said) in comparison_cells(results):
        bold = "**" if found.verdict not in (None, "undecided") else ""
        rows.append([markdown_text(names), *(cell.replace("<", "&lt;") for cell in cells), f"{bold}{said}{bold}"])
    table = markdown_table(list(COMPARISON_HEADERS), rows, texts=(0, 1, 5))
    return [
        "## Comparisons",
        *draw("Differences with their intervals", forest),
        table,
        markdown_text(how_compared(results)),
        *map(markdown_text, seed_noise_lines(results)),
        *_section("Where the noise comes from", noise, draw),
        *_section(f"What more seeds or {plural_of(noun(results.group_by))} would see", power_curve, draw),
    ]


def _section(title: str, plot: Callable[[Results], str], draw: Draw) -> list[str]:
    """A plot under a heading; neither where no plots are drawn."""
    drawn = draw(title, plot)
    return [f"## {markdown_text(title)}", *drawn] if drawn else []


def _looks(results: Results) -> list[str]:
    if not results.looks:
        return []
    rows = [[markdown_text(cell) for cell in cells] for cells in look_cells(results)]
    table = markdown_table(list(LOOK_HEADERS), rows, texts=(1, 5))
    return ["## Looks", table, *map(markdown_text, looked(results)), markdown_text(HOW_LOOKED)]


def _splits(results: Results) -> list[str]:
    if not results.over_splits:
        return []
    headers, rows = split_table(results)
    cells = [[markdown_text(cell) for cell in row] for row in rows]
    return ["## Splits", markdown_table(headers, cells, texts=(0, len(headers) - 1)), HOW_SPLIT]


def _members(results: Results) -> str:
    rows = [
        [markdown_text(v.name), m.run, score(m.score), str(m.best_step), cut_off(m), markdown_text(m.artifact)]
        for v in results.variants
        for m in v.members
    ]
    return (
        markdown_table(["variant", "seed", "score", "best step", "cut off", "artifact"], rows, texts=(0, 5))
        if rows
        else "None were trained."
    )


def _dataset(stats: DatasetStats) -> list[str]:
    numbers = [f"{stats.n:,}", f"{stats.n_prompts:,}", f"{stats.ratio:.4g}", f"{stats.median_tokens:g}"]
    blocks = [markdown_table(["n", "n_prompts", "ratio", "median_tokens"], [numbers], texts=())]
    if not stats.dropped:
        return [*blocks, "No rows were dropped."]
    reasons = sorted(stats.dropped.items(), key=lambda item: (-item[1], item[0]))
    return [*blocks, markdown_table(["dropped because", "rows"], [[markdown_text(r), f"{n:,}"] for r, n in reasons])]


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]], texts: tuple[int, ...] = (0,)) -> str:
    """A pipe table; columns in `texts` are aligned left, the others right."""
    rule = [":---" if i in texts else "---:" for i in range(len(header))]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [header, rule, *rows])


def markdown_text(text: str) -> str:
    """The text on one line, with everything escaped that Markdown, GitHub or HTML would interpret."""
    line = one_line(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|~$])", r"\\\1", line)
