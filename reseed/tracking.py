"""Weights & Biases: one run a member, offline unless the user is logged in."""

from __future__ import annotations

import netrc
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reseed.records import LossPoint

PROJECT = "reseed"


def wandb_mode() -> Any:
    """`WANDB_MODE` where it is set; else online with an API key in the environment or in ~/.netrc, else offline."""
    if mode := os.environ.get("WANDB_MODE"):
        return mode
    if os.environ.get("WANDB_API_KEY"):
        return "online"
    try:
        return "online" if netrc.netrc().authenticators("api.wandb.ai") else "offline"
    except (OSError, netrc.NetrcParseError):
        return "offline"


class Tracker:
    """One member's run. The id is the member's key, so a resumed member goes on in the run it began."""

    def __init__(self, key: str, group: str, name: str, config: Mapping[str, Any], folder: Path) -> None:
        import wandb

        folder.mkdir(parents=True, exist_ok=True)
        self.run = wandb.init(
            project=PROJECT,
            id=key[:16],
            group=group,
            name=name,
            config=dict(config),
            dir=str(folder),
            mode=wandb_mode(),
            resume="allow",
            reinit="finish_previous",  # the default merges the runs of one process
            settings=wandb.Settings(silent=True, console="off", x_disable_stats=True),
        )

    def point(self, point: LossPoint) -> None:
        """A point of the loss curve."""
        values = {"train/loss": point.train, "validation/loss": point.validation, "validation/metric": point.metric}
        self.run.log({"step": point.step, **{k: v for k, v in values.items() if v is not None}}, step=point.step)

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Write the summary and end the run; a run left open would swallow the next one."""
        self.run.summary.update(dict(summary))
        self._end(exit_code=0)

    def abandon(self) -> None:
        """End the run of a member that failed; when it goes on, so does the run."""
        self._end(exit_code=1)

    def _end(self, exit_code: int) -> None:
        import wandb

        self.run.finish(exit_code=exit_code)
        wandb.teardown()  # its service too, or the folder of its socket stays behind
