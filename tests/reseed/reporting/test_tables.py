from __future__ import annotations

import re
from dataclasses import replace

from report_samples import comparison, variant
from rich.console import Console

from reseed.reporting.tables import comparison_cells, lines, results_table
from reseed.reporting.verdict import verdict
from reseed.results import ConstantResult, Results


def shown(results: Results, styled: bool = False) -> str:
    console = Console(width=80, force_terminal=styled, color_system="standard" if styled else None, highlight=False)
    with console.capture() as captured:
        console.print(results_table(results))
    return captured.get()


def test_table_shows_every_number_within_80_columns(results: Results) -> None:
    text = shown(results)
    for number in ["0.7104", "0.7251", "0.7187", "0.7181 ± 0.0074", "0.7342", "0.7160", "0.6512", "0.6830", "0.6120"]:
        assert number in text
    for word in ["seed 0", "seed 2", "mean ± std", "ensemble", "untrained", "higher is better", "1,200 rows"]:
        assert word in text
    assert max(len(line) for line in text.splitlines()) <= 80


def test_bold_means_decided_and_not_the_largest_number(results: Results) -> None:
    lucky = replace(results, variants=(variant("a", [0.99, 0.70, 0.71], 0.99), *results.variants))
    assert [line.label for line in lines(lucky) if line.decided] == ["completion", "whole-text"]
    bold = "".join(re.findall(r"\x1b\[1m(.*?)\x1b", shown(lucky, styled=True)))
    assert "completion" in bold
    assert "0.7342" in bold
    assert "0.9900" not in bold
    undecided = tuple(replace(found, verdict="undecided") for found in results.comparisons)
    assert not [line for line in lines(replace(results, comparisons=undecided)) if line.decided]


def test_every_comparison_has_a_line_with_its_p_and_its_verdict(results: Results) -> None:
    cells = [texts for _, texts in comparison_cells(results)]
    assert cells[0] == ("completion − whole-text", "recipe", "+0.0151", "+0.0058 to +0.0244", "0.012", "better")
    assert cells[-1][0] == "whole-text (ensemble) − untrained"
    unknown = replace(results, comparisons=(comparison("a", "b", 0.1, 0.0, None),))
    assert [texts for _, texts in comparison_cells(unknown)] == [("a − b", "recipe", "+0.1000", "", "", "no verdict")]


def test_cross_fitted_constant_says_that_its_text_varies(results: Results) -> None:
    fitted = replace(results, constants=(ConstantResult("Rewrite it", 0.5, cross_fitted=True),))
    assert "best constant, mostly “Rewrite it”" in [line.label for line in lines(fitted)]


def test_one_seed_has_no_std(results: Results) -> None:
    one = replace(results, variants=(variant("completion", [0.7], 0.7),), constants=())
    assert "0.7000 ± " not in shown(one)
    assert lines(one)[0].mean == "0.7000"


def test_four_seeds_fit_and_ten_become_their_range(results: Results) -> None:
    four = replace(results, variants=(variant("completion", [0.70, 0.71, 0.72, 0.73], 0.74),))
    ten = replace(results, variants=(variant("completion", [0.70 + i / 100 for i in range(10)], 0.74),))
    assert "seed 3" in shown(four)
    assert "0.7150 ± 0.0129" in shown(four)
    assert "10 seeds" in shown(ten)
    assert "0.7000 … 0.7900" in shown(ten)
    assert max(len(line) for text in [shown(four), shown(ten)] for line in text.splitlines()) <= 80


def test_a_seed_that_a_variant_lacks_stays_blank(results: Results) -> None:
    uneven = replace(results, variants=(results.variants[0], variant("b", [0.7], 0.7)))
    assert lines(uneven)[1].seeds == ("0.7000", "", "")


def test_markup_and_control_characters_are_only_text(results: Results) -> None:
    text = shown(replace(results, constants=(ConstantResult("[red]stop[/red]\x1b[31m\nnow", 0.1),)))
    assert "[red]stop[/red]" in "".join(line[:40].strip() for line in text.splitlines())
    assert "\x1b" not in text


ATTACK = "[red]x[/red]\x1b[2J\x9b1m\r\u202egnp.\u2066\x00end"


def test_table_and_verdict_obey_no_text_of_the_rows(results: Results) -> None:
    odd = replace(
        results,
        metric=ATTACK,
        experiment=ATTACK,
        constants=(ConstantResult(ATTACK, 0.9),),
        variants=(replace(results.variants[0], name=ATTACK),),
    )
    text = shown(odd, styled=True) + verdict(odd)
    assert "[red]x[/red]" in text
    assert not {"\x9b", "\r", "\u202e", "\u2066", "\x00"} & set(text)
    assert "\x1b[2J" not in text
