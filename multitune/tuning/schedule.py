"""The learning rate as a pure function of the step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Kind = Literal["cosine", "linear", "constant"]


@dataclass(frozen=True)
class Schedule:
    """One curve over the run: up over `warmup` steps, flat, down over the last `decay` steps.

    total, warmup, decay: optimizer steps. The decay never reaches into the warmup.
    """

    kind: Kind
    total: int
    warmup: int
    decay: int

    def factor(self, step: int, *, start: int = 0) -> float:
        """What multiplies the rate at `step` (0 is the first) for a tensor that moves from `start` on; in 0..1.

        A tensor that starts later has a warmup of its own, on the run's curve.
        """
        ramp = min(1.0, (step - start + 1) / self.warmup) if self.warmup > 0 else 1.0
        return ramp * self._shape(step)

    def _shape(self, step: int) -> float:
        length = min(self.decay, self.total - self.warmup)
        gone = step - (self.total - length)
        if self.kind == "constant" or length <= 0 or gone <= 0:
            return 1.0
        share = min(1.0, gone / length)
        return 1.0 - share if self.kind == "linear" else 0.5 * (1.0 + math.cos(math.pi * share))
