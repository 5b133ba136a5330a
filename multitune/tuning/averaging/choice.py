"""Which of several figures of the validation split is the best, as early stopping judges it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from multitune.core import catalog
from multitune.core.errors import RecipeError, did_you_mean, one_of
from multitune.core.protocols import Control


@dataclass(frozen=True)
class Choice:
    """By a figure. mode: which way it is better; `auto`: by its name."""

    metric: str
    mode: Literal["auto", "max", "min"] = "auto"

    def figure(self, figures: Mapping[str, float]) -> float:
        """The figure among those measured.

        Raises: RecipeError if it is not there.
        """
        if self.metric not in figures:
            found = f'"{self.metric}" is not measured; there are {one_of(figures)}.'
            raise RecipeError("average.metric", found, did_you_mean(self.metric, list(figures)))
        return figures[self.metric]

    def best(self, values: Sequence[float]) -> int:
        """The place of the best value, the first of equals; 0 where none is finite."""
        control: Control = catalog.find("control", "early_stop", {"metric": self.metric, "mode": self.mode}).build()
        state, found = control.start(), 0
        for place, value in enumerate(values):
            state, decision = control.decide(state, step=place, figures={self.metric: value})
            found = place if decision.best else found
        return found

    def ranked(self, values: Sequence[float]) -> list[int]:
        """Places, the best first; equals in their order."""
        left = list(range(len(values)))
        order: list[int] = []
        while left:
            order.append(left.pop(self.best([values[place] for place in left])))
        return order
