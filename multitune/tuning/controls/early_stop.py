"""Stop when a validation figure has not become better for some evaluations; its best step becomes the artifact."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from multitune.core import catalog
from multitune.core.errors import RecipeError, did_you_mean, one_of
from multitune.core.protocols import Decision
from multitune.core.result import smaller_is_better


class Options(catalog.Options):
    """Which figure, and how patient."""

    metric: str = Field(description="such as valid/accuracy")
    patience: int = Field(default=3, ge=1, description="evaluations without a better figure")
    mode: Literal["auto", "max", "min"] = Field(default="auto", description="auto: as the plan states")
    min_delta: float = Field(default=0.0, ge=0, description="a smaller change is no better")


def build(options: Options) -> EarlyStop:
    """The control."""
    return EarlyStop(options)


class EarlyStop:
    """State: `best` (the best figure so far, absent before the first), `best_step`, `waited` (evaluations since)."""

    def __init__(self, options: Options, *, where: str = "train.early_stop") -> None:
        self._options, self._where = options, where
        small = smaller_is_better(options.metric) if options.mode == "auto" else options.mode == "min"
        self._sign = -1.0 if small else 1.0

    def start(self) -> Mapping[str, Any]:
        """The state before the first evaluation."""
        return {"best_step": 0, "waited": 0}

    def decide(self, state: Mapping[str, Any], *, step: int, figures: Mapping[str, float]) -> tuple[Mapping[str, Any], Decision]:
        """Take one evaluation in.

        Raises: RecipeError if the figure is not among those measured.
        """
        name = self._options.metric
        if name not in figures:
            found = f'"{name}" is not measured; there are {one_of(figures)}.'
            raise RecipeError(f"{self._where}.metric", found, did_you_mean(name, list(figures)))
        value = figures[name]
        if math.isfinite(value) and ("best" not in state or self._sign * (value - state["best"]) > self._options.min_delta):
            return {"best": value, "best_step": step, "waited": 0}, Decision(best=True)
        waited = state["waited"] + 1
        if waited < self._options.patience:
            return {**state, "waited": waited}, Decision()
        best = f"{state['best']:.4g} at step {state['best_step']}" if "best" in state else "no finite value"
        reason = f"{name} has not become better for {waited} evaluations (best: {best})"
        return {**state, "waited": waited}, Decision(stop=True, reason=reason)
