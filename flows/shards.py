"""Which shards of generated rows a run needs."""

from __future__ import annotations

from reseed.line import Line, different
from reseed.steps.generate import WriteShard
from reseed.store.step import Step


def needed_shards(line: Line) -> list[Step[WriteShard]]:
    """Those of rows that are not stored: what was joined once is not generated again, whatever became of its parts."""
    rows = {name: line.rows(name).artifact for name, own in line.variants.items() if own.data.train is None}
    stored = line.store.finished(rows.values())
    return different(shard for name, made in rows.items() if made not in stored for shard in line.shards(name))
