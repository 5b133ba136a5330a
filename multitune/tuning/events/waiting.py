"""Whether training waited for its rows: a model that starves trains no faster on a faster machine."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from multitune.core.finding import Finding, Severity

LEAST_SECONDS = 60.0  # of waiting: below it nobody would gain much
SHARE = 0.3


@dataclass
class Waiting:
    """Seconds of this start's steps: in which rows were waited for, and in which the model worked."""

    waited: float = 0.0
    worked: float = 0.0

    def add(self, waited: float, worked: float) -> None:
        """One more step."""
        self.waited, self.worked = self.waited + waited, self.worked + worked

    def findings(self, workers: int) -> Iterator[Finding]:
        """What to know where much of the time was spent waiting. workers: loader processes."""
        share = self.waited / max(self.waited + self.worked, 1e-9)
        if self.waited >= LEAST_SECONDS and share >= SHARE:
            told = f"steps waited {self.waited:.0f} s ({share:.0%} of their time) for rows to be read and prepared."
            more = f"train.workers: {max(2, 2 * workers)}, if there are cores for them" if workers else "train.workers: 2"
            remedy = f"Set {more}; make the files smaller; or freeze what need not move, so that its features are kept."
            yield Finding("starved-loader", Severity.WARNING, "train.workers", told, remedy, {"share": round(share, 3)})
