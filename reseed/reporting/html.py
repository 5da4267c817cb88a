"""The report as one self-contained page: no script, no link, nothing to fetch; light or dark as the reader likes."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from reseed.records import DatasetStats, Results
from reseed.reporting.plots import loss_curves, scores, seed_colours
from reseed.reporting.tables import Line, beats_constants, lines, outcome, score_columns, verdict
from reseed.reporting.text import count, cut_off, direction, one_line, score

STYLE = """
:root { color-scheme: light dark; --page: #fcfcfb; --ink: #1d1f23; --soft: #62656c; --rule: #e2e2de; --band: #f4f4f1;
  --better: #1f9070; --worse: #c9473f; --noise: #b8860b; --unknown: #7d7f85; }
@media (prefers-color-scheme: dark) {
  :root { --page: #15171b; --ink: #e6e6e3; --soft: #9a9da5; --rule: #2d3037; --band: #1d2026; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.55 system-ui, -apple-system, "Segoe UI",
  Roboto, "Helvetica Neue", Arial, sans-serif; -webkit-text-size-adjust: 100%; }
main { max-width: 50rem; margin: 0 auto; padding: 3.5rem 1.5rem 5rem; overflow-wrap: anywhere; }
.name { margin: 0; color: var(--soft); font-size: .875rem; letter-spacing: .02em; }
h1 { margin: .35rem 0 1.5rem; font-size: clamp(1.5rem, 4.5vw, 2.125rem); line-height: 1.2; font-weight: 650;
  letter-spacing: -.015em; text-wrap: balance; }
h2 { margin: 3rem 0 .75rem; font-size: 1.125rem; font-weight: 650; letter-spacing: -.005em; }
.verdict { margin: 0; padding: .9rem 1.15rem; background: var(--band); border-left: 4px solid var(--unknown);
  border-radius: 0 6px 6px 0; font-size: 1.0625rem; text-wrap: pretty; }
.better { border-color: var(--better); } .worse { border-color: var(--worse); } .noise { border-color: var(--noise); }
.note { margin: .75rem 0 0; color: var(--soft); font-size: .875rem; }
.wide { overflow-x: auto; }
table { width: 100%; border-collapse: collapse; font-size: .9375rem; font-variant-numeric: tabular-nums; }
th, td { padding: .45rem .5rem; border-bottom: 1px solid var(--rule); text-align: right; vertical-align: baseline;
  white-space: nowrap; }
thead th { color: var(--soft); font-size: .8125rem; font-weight: 500; }
tbody th { font-weight: 400; }
th:first-child, td:first-child { padding-left: 0; } th:last-child, td:last-child { padding-right: 0; }
.text { text-align: left; white-space: normal; min-width: 8rem; }
.baseline { color: var(--soft); } .best, .best th { color: var(--ink); font-weight: 650; }
.best td:not(:last-child) { font-weight: 400; }
.dot { display: inline-block; width: .55em; height: .55em; margin-right: .4em; border-radius: 50%; }
code { font: .8125rem ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
.wide + .wide { margin-top: 1.5rem; }
figure { margin: 0; } .wide + figure { margin-top: 1.75rem; } svg { display: block; width: 100%; height: auto; }
svg text { font-family: inherit !important; }
@media print { main { padding: 0; max-width: none; } h2 { break-after: avoid; } figure, tr { break-inside: avoid; } }
"""


def html_report(results: Results) -> str:
    """Question, verdict, scores, loss curves, members and data of one experiment as a whole HTML document."""
    parts = [
        f'<p class="name">{_text(results.experiment)}</p>\n<h1>{_text(results.question)}</h1>',
        f'<p class="verdict {_tone(results)}">{_text(verdict(results))}</p>',
        f'<p class="note">{_about(results)}</p>',
        _section("Results", _results(results), f"<figure>{scores(results)}</figure>", _reading(results)),
        _section("Loss curves", f"<figure>{loss_curves(results)}</figure>"),
        _section("Members", _members(results)),
    ]
    if results.dataset:
        parts.append(_section("Dataset", *_dataset(results.dataset)))
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{_text(results.experiment)}</title>\n<style>{STYLE}</style>\n</head>\n"
        "<body>\n<main>\n" + "\n".join(parts) + "\n</main>\n</body>\n</html>\n"
    )


def _tone(results: Results) -> str:
    """The colour of the verdict: a gain that a constant answer matches is none."""
    return outcome(results) if beats_constants(results) else "worse"


def _about(results: Results) -> str:
    facts = [f"Problem {_text(results.problem)}", f"{_text(results.metric)}, {direction(results.higher_is_better)}"]
    if results.train_rows:
        facts.append(f"trained on {count(results.train_rows, 'row')}")
    return " · ".join([*facts, f"scored on {count(results.rows, 'held-out row')}"])


def _reading(results: Results) -> str:
    several = any(v.std is not None for v in results.variants)
    spread = "± std is the spread over seeds" if several else "One seed shows no spread"
    return f'<p class="note">{spread}; the interval of the verdict is over held-out rows, not over seeds.</p>'


def _results(results: Results) -> str:
    table = lines(results)
    headers, cells = score_columns(results, table)
    return _table(["variant", *headers], [_result_row(line, texts) for line, texts in zip(table, cells, strict=True)])


def _result_row(line: Line, texts: Sequence[str]) -> str:
    classes = " ".join(name for name, on in [("baseline", line.baseline), ("best", line.best)] if on)
    cells = "".join(f"<td>{text}</td>" for text in texts)
    return f'<tr class="{classes}"><th class="text" scope="row">{_text(line.label)}</th>{cells}</tr>'


def _members(results: Results) -> str:
    colour = seed_colours(results)
    rows = [
        f'<tr><th class="text" scope="row">{_text(v.name)}</th>'
        f'<td><span class="dot" style="background:{colour[m.seed]}"></span>{m.seed}</td>'
        f"<td>{score(m.score)}</td><td>{m.best_step}</td><td>{cut_off(m)}</td>"
        f'<td class="text"><code>{_text(m.artifact)}</code></td></tr>'
        for v in results.variants
        for m in v.members
    ]
    header = ["variant", "seed", "score", "best step", "cut off", "artifact"]
    return _table(header, rows, texts=(0, 5)) if rows else '<p class="note">None were trained.</p>'


def _dataset(stats: DatasetStats) -> list[str]:
    numbers = [f"{stats.n:,}", f"{stats.n_prompts:,}", f"{stats.ratio:.4g}", f"{stats.median_tokens:g}"]
    row = "<tr>" + "".join(f'<td class="text">{number}</td>' for number in numbers) + "</tr>"
    blocks = [_table(["n", "n_prompts", "ratio", "median_tokens"], [row], texts=(0, 1, 2, 3))]
    if not stats.dropped:
        return [*blocks, '<p class="note">No rows were dropped.</p>']
    reasons = sorted(stats.dropped.items(), key=lambda item: (-item[1], item[0]))
    rows = [f'<tr><th class="text" scope="row">{_text(why)}</th><td>{n:,}</td></tr>' for why, n in reasons]
    return [*blocks, _table(["dropped because", "rows"], rows)]


def _table(header: Sequence[str], rows: Sequence[str], texts: tuple[int, ...] = (0,)) -> str:
    """A table of written-out rows that scrolls by itself on a narrow page; columns in `texts` are set to the left."""
    cells = [
        f'<th class="{"text" if i in texts else "number"}" scope="col">{name}</th>' for i, name in enumerate(header)
    ]
    body = "\n".join(rows)
    return (
        f'<div class="wide"><table>\n<thead><tr>{"".join(cells)}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>'
    )


def _section(title: str, *blocks: str) -> str:
    return f"<section>\n<h2>{title}</h2>\n" + "\n".join(blocks) + "\n</section>"


def _text(text: str) -> str:
    return escape(one_line(text))
