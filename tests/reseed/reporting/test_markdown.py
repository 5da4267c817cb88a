from __future__ import annotations

from dataclasses import replace

from markdown_it import MarkdownIt
from report_samples import variant

from reseed.reporting.markdown import markdown_report
from reseed.reporting.verdict import verdict_lines
from reseed.results import ConstantResult, Results


def cells(report: str) -> list[list[str]]:
    """The rows of all tables as a Markdown parser that follows GitHub's tables reads them."""
    rows: list[list[str]] = []
    for token in MarkdownIt("commonmark").enable("table").parse(report):
        if token.type == "tr_open":
            rows.append([])
        elif token.type == "inline" and rows and token.level > 2:
            rows[-1].append("".join(child.content for child in token.children or []))
    return rows


def test_report_shows_question_verdict_and_every_table(results: Results) -> None:
    report = markdown_report(results)
    rows = cells(report)
    assert report.startswith("# iteration-10-completions\n")
    assert f"**Question.** {results.question}" in report
    assert f"**Verdict.** {verdict_lines(results)[0]}" in report
    assert ["completion − whole-text", "recipe", "+0.0151", "+0.0058 to +0.0244", "0.012", "better"] in rows
    assert "| **better** |" in report
    assert "| undecided |" in report
    assert ["completion", "0.7104", "0.7251", "0.7187", "0.7181 ± 0.0074", "0.7342"] in rows
    assert ["untrained", "", "", "", "", "0.6512"] in rows
    assert ["constant “Rewrite the text”", "", "", "", "", "0.6120"] in rows
    assert ["whole-text", "1", "0.7093", "180", "3", "model/iteration-10/1f3a9c0d21be"] in rows
    assert ["5,400", "1,310", "0.2426", "412.5"] in rows
    assert rows.index(["duplicate", "204"]) < rows.index(["too long", "31"])
    assert "| **completion** |" in report
    assert "| **0.7342** |" in report


def test_pipes_newlines_and_markup_stay_inside_their_cell(results: Results) -> None:
    text = "a | b\n\n# c `d` *e* _f_ [g](h) <script>alert(1)</script> \\ $i$ &amp;"
    odd = replace(
        results,
        question=text,
        constants=(ConstantResult(text, 0.1),),
        variants=(replace(results.variants[0], name="x|y\nz"),),
    )
    report = markdown_report(odd)
    rows = cells(report)
    assert [row[0] for row in rows if row[0].startswith("constant")] == [f"constant “{' '.join(text.split())}”"]
    assert [row[0] for row in rows if row[0].startswith("x")] == ["x|y z"] * 4
    assert "<script" not in report
    assert len([line for line in report.splitlines() if line.startswith("#")]) == 5


def test_one_seed_has_no_std_and_no_dataset_no_section(results: Results) -> None:
    one = replace(results, variants=(variant("a", [0.7], 0.7),), dataset=None)
    assert ["a", "0.7000", "0.7000", "0.7000"] in cells(markdown_report(one))
    assert "Dataset" not in markdown_report(one)
    assert "None were trained." in markdown_report(replace(results, variants=()))


def test_bytes_repeat(results: Results) -> None:
    assert markdown_report(results) == markdown_report(results)
