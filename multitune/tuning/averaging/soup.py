"""The mean of the weights at several evaluations of one run.

Source: Wortsman et al. 2022, arXiv:2203.05482, for the greedy one; there over runs, here over the steps of one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from multitune.tuning.averaging.choice import Choice

Look = tuple[int, float]
Weights = Mapping[str, Tensor]
Measure = Callable[[Weights], Mapping[str, float]]


@dataclass(frozen=True)
class Soup:
    """Which evaluations it is made of: the last so many, or the best. choice: needed for `best` and `greedy`."""

    last: int
    best: int
    greedy: bool
    choice: Choice | None

    def wanted(self, looks: Sequence[Look]) -> list[int]:
        """The steps whose weights it takes, of the evaluations so far; the best first where a figure ranks them."""
        recent = list(looks[-self.last :]) if self.last else list(looks)
        if self.choice is None or not (self.best or self.greedy):
            return [step for step, _ in recent]
        places = self.choice.ranked([value for _, value in recent])
        return [recent[place][0] for place in (places[: self.best] if self.best else places)]


def mean(weights: Sequence[Weights]) -> dict[str, Tensor]:
    """The mean of each tensor, taken in float64; that of one set of weights is that set, to the bit."""
    if len(weights) == 1:
        return dict(weights[0])
    found: dict[str, Tensor] = {}
    for name, first in weights[0].items():
        total = torch.stack([one[name].double() for one in weights]).mean(0)
        found[name] = total.to(first.dtype)
    return found


def greedy(steps: Sequence[int], read: Callable[[int], Weights], measure: Measure, choice: Choice) -> tuple[list[int], dict[str, Tensor]]:
    """Take the weights of steps in, one after another, each where the mean with it is no worse: the steps that stayed, and their mean."""
    taken, kept = [steps[0]], [read(steps[0])]
    reached = choice.figure(measure(kept[0]))
    for step in steps[1:]:
        tried = [*kept, read(step)]
        value = choice.figure(measure(mean(tried)))
        if math.isfinite(value) and choice.best([value, reached]) == 0:  # the first of equals: no worse
            taken, kept, reached = [*taken, step], tried, value
    return taken, mean(kept)
