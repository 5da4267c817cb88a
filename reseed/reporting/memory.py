"""A memory plan as a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from reseed.text import visible
from reseed.training.memory.plan import Memory

if TYPE_CHECKING:
    from rich.table import Table

PARTS = ("weights", "adapters", "gradients", "optimizer", "activations", "gathered", "total", "host")


def memory_table(title: str, plans: Sequence[Memory]) -> Table:
    """The plans as a table in GiB a rank, with a column for each ZeRO stage and a line for each part."""
    from rich.table import Table
    from rich.text import Text

    table = Table("GiB a rank", title=Text(visible(title)), title_justify="left")
    for plan in plans:
        table.add_column("no ZeRO" if plan.zero_stage == 0 else f"ZeRO-{plan.zero_stage}", justify="right")
    for part in PARTS:
        table.add_row(part, *(f"{getattr(plan, part) / 2**30:.2f}" for plan in plans))
    return table
