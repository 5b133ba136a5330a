"""TensorBoard: figures as curves, in `trackers/tensorboard` of the run's folder; `tensorboard --logdir runs` shows them.

A resumed run goes on in the same curves: what was written after its last checkpoint is not shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from multitune.core import catalog
from multitune.core.protocols import Tracker

PACKAGE = "tensorboard"


class Options(catalog.Options):
    """No options."""


class TensorBoard:
    """Accelerate's tracker around a SummaryWriter."""

    def __init__(self, folder: Path, after: int, config: Mapping[str, str | float]) -> None:
        from accelerate.tracking import TensorBoardTracker

        self.where = str(folder)
        more = {"purge_step": after + 1} if after else {}
        self._tracker: Any = TensorBoardTracker("tensorboard", folder.parent, **more)
        self._tracker.start()
        if not after:
            rows = "\n".join(f"| {name} | {value} |" for name, value in config.items())
            self._tracker.log({"plan": f"| value | |\n|---|---|\n{rows}"}, step=0)

    def write(self, values: Mapping[str, float], *, step: int) -> None:
        """A point on each curve."""
        self._tracker.log(dict(values), step=step)

    def close(self) -> None:
        """Write out what is buffered."""
        self._tracker.finish()


def build(options: Options, *, folder: Path, name: str, after: int, config: Mapping[str, str | float]) -> Tracker:
    """The tracker of a run."""
    return TensorBoard(folder, after, config)
