"""Start the next phase early: when a validation figure has not become better for some evaluations of this one.

Each phase is judged by its own evaluations. A phase never starts later than planned.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from multitune.core.protocols import Decision
from multitune.tuning.controls import early_stop

Options = early_stop.Options


def build(options: Options) -> Plateau:
    """The control."""
    return Plateau(options)


class Plateau:
    """State: that of early stopping, anew in each phase."""

    def __init__(self, options: Options) -> None:
        self._judge = early_stop.EarlyStop(options, where="train.plateau")

    def start(self) -> Mapping[str, Any]:
        """The state before the first evaluation of a phase."""
        return self._judge.start()

    def decide(self, state: Mapping[str, Any], *, step: int, figures: Mapping[str, float]) -> tuple[Mapping[str, Any], Decision]:
        """Take one evaluation in.

        Raises: RecipeError if the figure is not among those measured.
        """
        after, decision = self._judge.decide(state, step=step, figures=figures)
        if not decision.stop:
            return after, Decision()
        return self.start(), replace(decision, stop=False, advance=True)
