"""Settings that would fit, found by planning them in the order of their cost."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from pydantic import ValidationError

from reseed.records import ReseedError
from reseed.settings import TrainingSettings
from reseed.training.arguments import micro_batch
from reseed.training.memory.fits import Fit, Need, demands_of, fit_by_plan, gib, plan_of
from reseed.training.memory.room import Room

Change = dict[str, Any]  # settings of the recipe's training; `micro_batch_size` and `workers` are the profile's


def refuse_unfit(fits: Iterable[Fit], room: Room) -> None:
    """Raise ReseedError if one of them certainly does not fit, with settings that would."""
    wrong = []
    for fit in fits:
        if fit.over:
            need = fit.need
            lacking = " and ".join(
                f"{gib(d.needed)} GiB {d.place}, which has {gib(d.has)} ({d.has_from})"
                for d in fit.demands
                if d.verdict == "does not fit"
            )
            wrong.append(
                f"training of {', '.join(need.variants)} does not fit: {need.spec.name} by {need.settings.method}, "
                f"{need.rows} rows of {need.settings.max_tokens} tokens a worker, takes {lacking}; {what_fits(need, room)}"
            )
    if wrong:
        raise ReseedError("\n".join(wrong))


def what_fits(need: Need, room: Room) -> str:
    """Advice: the cheapest change that fits; if that is another method, also the cheapest that keeps the method."""
    found: list[str] = []
    tight = ""  # the first that may fit, in case nothing surely does
    hopeless: set[tuple[object, ...]] = set()  # too large even without activations
    for change in candidate_changes(need):
        smaller = apply_change(need, change)
        if smaller is None or (found and "method" in change):
            continue
        settings = smaller.settings
        kind = (settings.method, settings.zero_stage, settings.offload, smaller.workers)
        if kind in hopeless:
            continue
        fit = fit_by_plan(smaller, room)
        if all(demand.verdict == "fits" for demand in fit.demands):
            found.append(change_text(change, smaller))
            if "method" not in change:
                break
        elif not fit.over:
            tight = tight or change_text(change, smaller)
        elif not bare_fits(smaller, room):
            hopeless.add(kind)
    if not found and tight:
        return f"nothing surely makes it fit; {tight} may"
    if not found:
        return "no setting that reseed knows makes it fit; choose a smaller model, or more memory"
    return "it fits with " + ", or with ".join(found)


def candidate_changes(need: Need) -> Iterator[Change]:
    """Changes to try, cheapest first: smaller micro-batches cost only time, shorter rows cost text."""
    halves = [need.rows >> by for by in range(1, need.rows.bit_length())]
    for rows in halves:
        yield {"micro_batch_size": rows}
    if not need.on_card and need.workers > 1:
        yield {"workers": 1, "micro_batch_size": need.rows}
    least: Change = {"micro_batch_size": 1} if need.rows > 1 else {}
    checkpointing: Change = {} if need.settings.gradient_checkpointing else {"gradient_checkpointing": True}
    bases: list[Change] = [{}] if need.settings.method == "qlora" else [{}, {"method": "qlora"}]
    for base in bases:
        for change in ({}, checkpointing, {**checkpointing, **least}):
            if base or change:
                yield {**base, **change}
    small: Change = {**checkpointing, **least}
    for base in bases:
        if need.workers > 1 and need.settings.zero_stage < 3:
            yield {**base, **small, "zero_stage": 3}
        if need.on_card:
            yield {**base, **small, "offload": "optimizer"}
            yield {**base, **small, "zero_stage": 3, "offload": "parameters"}
        for part in (2, 4):
            if need.settings.max_tokens // part >= 16:
                yield {**base, **small, "max_tokens": need.settings.max_tokens // part}


def apply_change(need: Need, change: Change) -> Need | None:
    """The need with a change applied, or None where the settings contradict each other."""
    own = {key: value for key, value in change.items() if key not in ("micro_batch_size", "workers")}
    try:
        settings = TrainingSettings.model_validate(need.settings.model_dump() | own)
        workers = change.get("workers", need.workers)
        rows = micro_batch(settings.batch_size, workers, change.get("micro_batch_size", need.rows))
    except (ValidationError, ReseedError):
        return None
    if settings.loss_on == "completion" and settings.max_tokens <= need.labels:
        return None  # an answer would leave no room for a prompt
    spec = need.spec
    if "method" in own:
        spec = spec.model_copy(update={"four_bit": "nf4-double" if settings.double_quantization else "nf4"})
    labels = min(need.labels, settings.max_tokens)
    return replace(need, spec=spec, settings=settings, rows=rows, labels=labels, workers=workers)


def bare_fits(need: Need, room: Room) -> bool:
    """False when weights, adapter and optimiser are too much even without activations."""
    plan = plan_of(need.spec, need.settings, need.rows, need.labels, need.workers)
    stay = max(plan.loading, plan.weights + plan.adapters + plan.optimizer)
    return all(demand.verdict != "does not fit" for demand in demands_of(need, room, stay, stay, plan.host))


def change_text(change: Change, need: Need) -> str:
    """A change as the user would set it: `training.method=qlora (25.1 GiB a worker)`."""
    named = [
        f"{'profile.' if key in ('micro_batch_size', 'workers') else ''}training.{key}={str(value).lower()}"
        for key, value in change.items()
    ]
    plan = plan_of(need.spec, need.settings, need.rows, need.labels, need.workers)
    return f"{' '.join(named)} ({gib(plan.peak)} GiB a worker)"
