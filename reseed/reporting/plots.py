"""The plots of members: scores and loss curves."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from reseed.records import LossPoint
from reseed.reporting.drawing import COLOURS, GREY, INK, dress, legend, notice, svg
from reseed.reporting.tables import seeds_of
from reseed.reporting.text import direction
from reseed.results import MemberResult, Results, VariantResult
from reseed.text import one_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Points = tuple[list[int], list[float]]


def loss_curves(results: Results) -> str:
    """An SVG with a panel for each variant: train loss thin, validation loss thick, best steps as dots."""
    from matplotlib.figure import Figure

    colour = seed_colours(results)
    variants = [v for v in results.variants if any(_has_curve(m) for m in v.members)]
    if not variants:
        return notice("No loss curve was recorded.", "Loss curves")
    columns = min(2, len(variants))
    rows = math.ceil(len(variants) / columns)
    figure = Figure(figsize=(7.6, 0.5 + 2.7 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for axes, variant in zip(panels, variants, strict=False):
        for member in variant.members:
            _draw_curve(axes, member, colour[member.run])
        dress(axes)
        axes.set_title(one_line(variant.name, 48), loc="left", fontsize=10, color=INK, parse_math=False)
        axes.set_xlabel("step", color=INK)
        axes.set_ylabel("loss", color=INK)
        axes.label_outer()
    for axes in panels[len(variants) :]:
        axes.remove()
    _curve_legend(figure, colour)
    return svg(figure, "Loss curves", f"Train and validation loss of {len(colour)} seeds")


def scores(results: Results) -> str:
    """An SVG with a line for each variant (members, mean and blend), for the untrained model and for each constant."""
    from matplotlib.figure import Figure

    colour = seed_colours(results)
    baselines = [("untrained", results.untrained, "s")]
    baselines += [(f"“{one_line(c.text, 32)}”", c.score, "X") for c in results.constants]
    labels = [one_line(v.name, 34) for v in results.variants] + [label for label, _, _ in baselines]
    figure = Figure(figsize=(7.6, 1.25 + 0.36 * len(labels)), layout="constrained")
    axes = figure.subplots()
    dress(axes)
    for y, variant in enumerate(results.variants):
        _draw_variant(axes, y, variant, colour)
    for y, (_, value, marker) in enumerate(baselines, start=len(results.variants)):
        if math.isfinite(value):
            axes.plot([value], [y], marker, color=GREY, markersize=7, zorder=3)
    if math.isfinite(results.untrained):
        axes.axvline(results.untrained, color=GREY, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    axes.set_yticks(range(len(labels)), labels, parse_math=False)
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.margins(x=0.06)
    about = f"{one_line(results.metric, 60)} ({direction(results.higher_is_better)})"
    axes.set_xlabel(about, color=INK, parse_math=False)
    _score_legend(figure, spread=any(v.std is not None for v in results.variants))
    return svg(figure, "Scores", f"{about}: members, mean, ensemble and baselines")


def seed_colours(results: Results) -> dict[str, str]:
    """The colour of each seed, the same in every plot; they repeat from the ninth."""
    return {seed: COLOURS[i % len(COLOURS)] for i, seed in enumerate(seeds_of(results))}


def _points(curve: tuple[LossPoint, ...], kind: str) -> Points:
    values = [(p.step, p.train if kind == "train" else p.validation) for p in curve]
    kept = sorted((step, value) for step, value in values if value is not None and math.isfinite(value))
    return [step for step, _ in kept], [value for _, value in kept]


def _has_curve(member: MemberResult) -> bool:
    return bool(_points(member.curve, "train")[0] or _points(member.curve, "validation")[0])


def _draw_curve(axes: Axes, member: MemberResult, colour: str) -> None:
    axes.plot(*_points(member.curve, "train"), color=colour, linewidth=0.8, alpha=0.65)
    steps, losses = _points(member.curve, "validation")
    axes.plot(steps, losses, color=colour, linewidth=2, marker="." if len(steps) == 1 else None)
    if member.best_step in steps:
        loss = losses[steps.index(member.best_step)]
        axes.plot([member.best_step], [loss], "o", color=colour, markeredgecolor=INK, markersize=6, zorder=4)


def _draw_variant(axes: Axes, y: int, variant: VariantResult, colour: dict[str, str]) -> None:
    for member in variant.members:
        if math.isfinite(member.score):
            axes.plot([member.score], [y], "o", color=colour[member.run], markersize=5.5, zorder=4)
    if math.isfinite(variant.mean):
        if variant.std is not None and math.isfinite(variant.std):
            low, high = variant.mean - variant.std, variant.mean + variant.std
            axes.plot([low, high], [y, y], color=INK, alpha=0.18, linewidth=9, solid_capstyle="butt", zorder=2)
        axes.plot([variant.mean], [y], "|", color=INK, markersize=17, markeredgewidth=1.6, zorder=3)
    if math.isfinite(variant.ensemble):
        axes.plot(
            [variant.ensemble], [y], "D", color=INK, markerfacecolor="none", markersize=9, markeredgewidth=1.5, zorder=5
        )


def _curve_legend(figure: Figure, colour: dict[str, str]) -> None:
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=c, linewidth=2, label=f"seed {seed}") for seed, c in list(colour.items())[:8]]
    handles += [
        Line2D([], [], color=INK, linewidth=0.8, label="train"),
        Line2D([], [], color=INK, linewidth=2, label="validation"),
        Line2D([], [], color=INK, linestyle="", marker="o", markerfacecolor="none", markersize=6, label="best step"),
    ]
    legend(figure, handles)


def _score_legend(figure: Figure, spread: bool) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=COLOURS[0], linestyle="", marker="o", markersize=5.5, label="one seed"),
        Line2D([], [], color=INK, linestyle="", marker="|", markersize=12, markeredgewidth=1.6, label="mean"),
        *([Line2D([], [], color=INK, alpha=0.18, linewidth=9, label="± std")] if spread else []),
        Line2D([], [], color=INK, linestyle="", marker="D", markerfacecolor="none", markersize=8, label="ensemble"),
        Line2D([], [], color=GREY, linewidth=1, linestyle=(0, (4, 3)), label="untrained"),
    ]
    legend(figure, handles)
