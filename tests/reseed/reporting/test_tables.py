from __future__ import annotations

import math
import re
from dataclasses import replace

import numpy as np
import pytest
from report_samples import variant
from rich.console import Console

from reseed.evaluation.scoring import paired_interval
from reseed.records import ConstantResult, Interval, Results
from reseed.reporting.tables import beats_constants, lines, outcome, results_table, verdict


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


def test_the_best_answer_is_bold_and_a_lucky_seed_is_not(results: Results) -> None:
    lucky = replace(results, variants=(variant("a", [0.99, 0.70, 0.71], 0.72), *results.variants))
    assert [line.label for line in lines(lucky) if line.best] == ["completion"]
    bold = "".join(re.findall(r"\x1b\[1m(.*?)\x1b", shown(lucky, styled=True)))
    assert "completion" in bold
    assert "0.7342" in bold
    assert "0.9900" not in bold


def test_the_best_of_a_loss_is_the_lowest(results: Results) -> None:
    loss = replace(results, higher_is_better=False)
    assert [line.label for line in lines(loss) if line.best] == ["constant “Rewrite the text”"]


def test_scores_that_print_the_same_are_both_best(results: Results) -> None:
    tied = replace(results, untrained=0.73421)
    assert [line.label for line in lines(tied) if line.best] == ["completion", "untrained"]


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


def test_verdict_of_a_gain_beyond_its_interval(results: Results) -> None:
    text = verdict(results)
    assert "scores 0.7342 against 0.6512 of the untrained model (higher is better)" in text
    assert "it beats the untrained model, with a difference of +0.0830 (95 % interval +0.0709 to +0.0951)" in text
    assert "It beats the best constant answer, “Please improve the following" in text
    assert "at 0.6830, with a difference of +0.0512" in text


def test_verdict_of_a_gain_within_its_interval(results: Results) -> None:
    text = verdict(replace(results, gain=Interval(0.01, 0.03)))
    assert "the difference of +0.0100 (95 % interval −0.0200 to +0.0400) is within noise" in text
    assert "beats the untrained" not in text


@pytest.mark.parametrize(
    ("mean", "higher_is_better", "expected"),
    [
        (0.2, True, "better"),
        (-0.2, True, "worse"),
        (-0.2, False, "better"),
        (0.2, False, "worse"),
        (0.1, True, "noise"),
        (-0.05, False, "noise"),
        (math.nan, True, "unknown"),
    ],
)
def test_outcome_minds_the_direction(results: Results, mean: float, higher_is_better: bool, expected: str) -> None:
    assert outcome(replace(results, gain=Interval(mean, 0.1), higher_is_better=higher_is_better)) == expected


@pytest.mark.parametrize("mean", [0.1, -0.1, 0.0])
@pytest.mark.parametrize("half_width", [0.0, 0.05])
def test_one_row_decides_nothing(results: Results, mean: float, half_width: float) -> None:
    one = replace(results, rows=1, gain=Interval(mean, half_width))
    text = verdict(one)
    assert outcome(one) == "unknown"
    assert "one row cannot decide whether the difference of" in text
    assert "It is ahead of the best constant answer, “Please improve" in text
    assert [word for word in ("beats", "worse", "95 %") if word in text] == []


def test_interval_of_no_width_decides_nothing(results: Results) -> None:
    """Every row differs by the same 0.1: as computed, whose rounding leaves a spread of 1e-17."""
    base = np.array([0.3, 0.5, 0.7, 0.25])
    gain = paired_interval(base + 0.1, base)
    assert 0 < gain.half_width < 1e-16
    for given in (gain, Interval(0.1, 0.0), Interval(-0.1, 0.0), Interval(0.0, 0.0)):
        flat = replace(results, gain=given)
        assert outcome(flat) == "unknown"
        assert "in every row, and without a spread between rows that decides nothing" in verdict(flat)
        assert "beats" not in verdict(flat)
        assert "worse" not in verdict(flat)
    assert outcome(replace(results, gain=Interval(1e-5, 1e-6))) == "better", "narrow is not without width"


def test_model_behind_a_constant_is_not_judged_by_one_row(results: Results) -> None:
    behind = replace(results, rows=1, gain=Interval(0.1, 0.0), constants=(ConstantResult("Improve the text", 0.9),))
    assert "It is not ahead of the best constant answer, “Improve the text” at 0.9000" in verdict(behind)
    assert "learnt nothing" not in verdict(behind)


def test_verdict_where_lower_is_better(results: Results) -> None:
    loss = replace(results, higher_is_better=False, untrained=0.9, gain=Interval(-0.1658, 0.02))
    text = verdict(loss)
    assert "(lower is better): it beats the untrained model, with a difference of −0.1658" in text
    assert "does not beat the best constant answer, “Rewrite the text” at 0.6120" in text


def test_verdict_of_a_model_behind_a_constant(results: Results) -> None:
    behind = replace(results, constants=(ConstantResult("Improve the text", 0.7342),))
    assert not beats_constants(behind)
    assert "a model that does not beat a constant has learnt nothing" in verdict(behind)


def test_verdict_without_interval_constants_or_variants(results: Results) -> None:
    bare = replace(results, gain=None, constants=())
    assert "cannot be told from noise" in verdict(bare)
    assert "constant" not in verdict(bare)
    assert verdict(replace(bare, variants=())) == "No variant was trained; the untrained model scores 0.6512."
    assert "The one seed of a scores" in verdict(replace(bare, variants=(variant("a", [0.7], 0.7),)))


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
