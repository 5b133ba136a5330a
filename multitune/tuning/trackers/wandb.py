"""Weights & Biases: offline by default, in `trackers/wandb` of the run's folder; `wandb sync FOLDER` sends it later.

With `mode: online` it goes to the server as the run goes; the key is W&B's own (`wandb login` or WANDB_API_KEY), never the recipe's.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from multitune.core import catalog
from multitune.core.errors import TrackerError
from multitune.core.protocols import Tracker
from multitune.tuning.events.reaching import reach

PACKAGE = "wandb"
SERVER = "https://api.wandb.ai"


class Options(catalog.Options):
    """Where it is shown."""

    project: str = Field(default="multitune", description="the project that holds the run")
    entity: str = Field(default="", description="a team or user; empty: the one that is logged in")
    mode: Literal["offline", "online"] = Field(default="offline", description="online sends while the run goes")


class WandB:
    """Accelerate's tracker around a W&B run."""

    def __init__(self, options: Options, folder: Path, name: str, config: Mapping[str, str | float]) -> None:
        if options.mode == "online":
            reach(os.environ.get("WANDB_BASE_URL", SERVER), name="wandb", remedy="Use mode: offline, and wandb sync later.")
        folder.mkdir(parents=True, exist_ok=True)
        self.where = str(folder) if options.mode == "offline" else options.project
        with _told():
            from accelerate import PartialState
            from accelerate.tracking import WandBTracker

            PartialState()  # without it the tracker, which logs, is refused
            settings = importlib.import_module("wandb").Settings(
                silent=True, console="off", disable_git=True, save_code=False, x_disable_stats=True
            )
            more = {"entity": options.entity} if options.entity else {}
            self._tracker: Any = WandBTracker(
                options.project, dir=str(folder), mode=options.mode, name=name, config=dict(config), settings=settings, **more
            )
            self._tracker.start()

    def write(self, values: Mapping[str, float], *, step: int) -> None:
        """A point on each curve."""
        with _told():
            self._tracker.log(dict(values), step=step)

    def close(self) -> None:
        """Close the run."""
        with _told():
            self._tracker.finish()


def build(options: Options, *, folder: Path, name: str, after: int, config: Mapping[str, str | float]) -> Tracker:
    """The tracker of a run."""
    return WandB(options, folder, name, config)


@contextmanager
def _told() -> Generator[None]:
    """W&B's own errors as ours."""
    refused = importlib.import_module("wandb").Error
    try:
        yield
    except refused as error:
        raise TrackerError(f"wandb: {error}") from None
