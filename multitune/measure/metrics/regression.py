"""Mean absolute error and R2, in the user's units.

Two numbers are kept for each row. R2 is left out where all true values are equal.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from multitune.core import catalog
from multitune.core.protocols import AnswerNeed, ByRow, Figure, Metric, Number, Prediction
from multitune.measure.bootstrap import Array, interval
from multitune.measure.paired import Sums

SERVES = ("number",)


class Options(catalog.Options):
    """No options."""


def build(options: Options, answer: str, need: AnswerNeed) -> Regression:
    """The metric of one number answer."""
    return Regression(answer, need)


class Regression(Metric):
    """Keeps the true and the predicted number of each row."""

    primary = "mae"
    better = "lower"
    otherwise = ("r2",)

    def __init__(self, answer: str, need: AnswerNeed) -> None:
        self.answer, self.need = answer, need
        self.truth, self.given = array("d"), array("d")

    def update(self, prediction: Prediction, truth: Mapping[str, Any]) -> None:
        """Take one row."""
        given = prediction.answers.get(self.answer)
        if self.answer in truth and isinstance(given, Number):
            self.truth.append(float(truth[self.answer]))
            self.given.append(given.value)

    def compute(self, *, draws: int, seed: int) -> Iterator[Figure]:
        """`mae` and `r2`."""
        if not self.truth:
            return
        rows = self._rows(np.array(self.given))
        for name, statistic in self._statistics():
            low, high = interval(rows, statistic, draws=draws, seed=seed)
            yield Figure(name, float(statistic(rows.sum(0, keepdims=True))[0]), low, high, drawn=draws > 0)

    def baseline(self) -> Iterator[Figure]:
        """`mean/mae` and `mean/r2`: always the mean of the train split."""
        if not self.truth:
            return
        sums = self._rows(np.full(len(self.truth), self.need.mean)).sum(0, keepdims=True)
        for name, statistic in self._statistics():
            value = float(statistic(sums)[0])
            yield Figure(f"mean/{name}", value, value, value, drawn=False)

    def by_row(self) -> Mapping[str, ByRow]:
        """`mae` and `r2`."""
        if not self.truth:
            return {}
        rows = self._rows(np.array(self.given))
        return {name: Sums(rows, statistic) for name, statistic in self._statistics()}

    def _rows(self, given: Array) -> Array:
        """What each row adds: 1, |error|, error squared, and the truth about its mean with its square."""
        truth = np.array(self.truth)
        error, centred = given - truth, truth - truth.mean()
        return np.stack([np.ones(len(truth)), np.abs(error), error**2, centred, centred**2], axis=1)

    def _statistics(self) -> list[tuple[str, Any]]:
        varies = len(set(self.truth)) > 1
        return [("mae", _mae), ("r2", _r2)] if varies else [("mae", _mae)]


def _mae(sums: Array) -> Array:
    return sums[:, 1] / sums[:, 0]


def _r2(sums: Array) -> Array:
    """1 - squared error over variance; not finite where a draw holds one value only (such draws are passed over)."""
    spread = sums[:, 4] - sums[:, 3] ** 2 / sums[:, 0]
    spread[spread <= 1e-12 * np.maximum(sums[:, 4], 1e-300)] = np.nan
    return 1 - sums[:, 2] / spread
