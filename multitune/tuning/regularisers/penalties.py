"""L1, L2 and L2-SP: what is added to the gradient of a step beside the loss's, exactly once whatever the micro-batches and ranks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from multitune.tuning.regularisers.start import Start
from multitune.tuning.scope import Entry


@dataclass(frozen=True)
class Penalties:
    """l1 * sum |w| + l2 / 2 * sum w^2 over what decays, and l2_sp / 2 * sum (w - start)^2 over the towers' own weights.

    Of tensors that the step gave a gradient; what no row reached stays as it is.
    Source: Li, Grandvalet, Davoine 2018, arXiv:1802.01483, for L2-SP.
    """

    l1: float = 0.0
    l2: float = 0.0
    l2_sp: float = 0.0
    start: Start = field(default_factory=lambda: Start({}))

    @property
    def active(self) -> bool:
        """Whether there is any."""
        return bool(self.l1 or self.l2 or self.l2_sp)

    @torch.no_grad()
    def add(self, entries: Sequence[Entry]) -> float:
        """Add their gradient to that of these tensors; gives their sum."""
        total = torch.zeros((), dtype=torch.float64)
        for entry in entries:
            weight, slope = entry.parameter, entry.parameter.grad
            if slope is None:
                continue
            if self.l1 and entry.decays:
                slope.add_(weight.sign(), alpha=self.l1)
                total += self.l1 * weight.abs().double().sum().cpu()
            if self.l2 and entry.decays:
                slope.add_(weight, alpha=self.l2)
                total += 0.5 * self.l2 * weight.double().square().sum().cpu()
            if self.l2_sp and entry.name in self.start.weights:
                gone = weight - self.start.weights[entry.name]
                slope.add_(gone, alpha=self.l2_sp)
                total += 0.5 * self.l2_sp * gone.double().square().sum().cpu()
        return float(total)
