"""Whether a class that is given 0.8 is right in 0.8 of such rows: ECE, Brier score and log loss of a category.

The confidence of a row is the probability of the class that is predicted. ECE: rows are put into `bins` bins of equal width, each open
below and closed above (0.7 of ten bins lies in 0.6 to 0.7); it is the mean over rows of how far, in their bin, the share of right rows lies
from the mean confidence. It cannot be below what few rows in a bin leave to chance; its draws lie above it by as much again, which its
interval takes back. Brier: the sum over classes of the squared error of the probabilities (0 to 2). Log loss: in nats, of at least 1e-15
for the true class. Four numbers are kept for a row, no scores.
Source: Guo et al. 2017, arXiv:1706.04599; Brier 1950.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from multitune.core import catalog
from multitune.core.protocols import AnswerNeed, ByRow, Category, Figure, Metric, Prediction
from multitune.measure.bootstrap import Array, interval
from multitune.measure.paired import Sums

SERVES = ("category",)
LEAST = 1e-15


class Options(catalog.Options):
    """How confidences are put together."""

    bins: int = Field(default=15, ge=2, le=1000, description="bins of equal width between 0 and 1")


def build(options: Options, answer: str, need: AnswerNeed) -> Calibration:
    """The metric of one category answer."""
    return Calibration(answer, options.bins)


class Calibration(Metric):
    """Keeps the confidence of each row, whether it is right, and its two scores."""

    primary = "brier"
    better = "lower"

    def __init__(self, answer: str, bins: int) -> None:
        self._answer, self._bins = answer, bins
        self._confidence, self._right = array("d"), array("b")
        self._brier, self._nll = array("d"), array("d")

    def update(self, prediction: Prediction, truth: Mapping[str, Any]) -> None:
        """Take one row; a class that the model does not know has the probability 0."""
        given = prediction.answers.get(self._answer)
        if self._answer not in truth or not isinstance(given, Category):
            return
        likely = given.scores.get(truth[self._answer], 0.0)
        self._confidence.append(given.scores[given.value])
        self._right.append(given.value == truth[self._answer])
        self._brier.append(sum(score**2 for score in given.scores.values()) - 2 * likely + 1)
        self._nll.append(-math.log(max(likely, LEAST)))

    def compute(self, *, draws: int, seed: int) -> Iterator[Figure]:
        """`ece`, `brier` and `nll`."""
        if not self._right:
            return
        for name, rows, statistic in self._figures():
            low, high = interval(rows, statistic, draws=draws, seed=seed, one_sided=name == "ece")
            yield Figure(name, float(statistic(rows.sum(0, keepdims=True))[0]), low, high, drawn=draws > 0)

    def by_row(self) -> Mapping[str, ByRow]:
        """All of `compute`."""
        return {name: Sums(rows, statistic) for name, rows, statistic in self._figures()} if self._right else {}

    def tables(self) -> Mapping[str, Sequence[Sequence[str]]]:
        """`reliability`: a row for each bin that has rows, with its mean confidence and its share of right rows."""
        if not self._right:
            return {}
        place, confidence, right = self._places(), np.array(self._confidence), np.array(self._right, np.float64)
        rows: list[tuple[str, ...]] = [("above", "to", "rows", "confidence", "accuracy")]
        for number in range(self._bins):
            here = place == number
            if here.any():
                means = (f"{confidence[here].mean():.4f}", f"{right[here].mean():.4f}")
                rows.append((f"{number / self._bins:.4f}", f"{(number + 1) / self._bins:.4f}", str(int(here.sum())), *means))
        return {"reliability": rows}

    def _figures(self) -> Iterator[tuple[str, Array, Callable[[Array], Array]]]:
        """Each figure with what each row adds to its sums; a bin's column holds right minus confidence, the last one counts."""
        ones = np.ones(len(self._right))
        apart = np.zeros((len(ones), self._bins + 1))
        apart[np.arange(len(ones)), self._places()] = np.array(self._right, np.float64) - np.array(self._confidence)
        apart[:, -1] = 1
        yield "ece", apart, _ece
        yield "brier", np.stack([np.array(self._brier), ones], axis=1), _mean
        yield "nll", np.stack([np.array(self._nll), ones], axis=1), _mean

    def _places(self) -> NDArray[np.int64]:
        """The bin of each row."""
        return bins_of(np.array(self._confidence), self._bins)


def bins_of(confidence: Array, bins: int) -> NDArray[np.int64]:
    """The bin, from 0, of each confidence; a value on an edge lies in the bin below it."""
    edges = np.arange(1, bins) / bins
    return np.searchsorted(edges, confidence, side="left").astype(np.int64)


def _ece(sums: Array) -> Array:
    return np.abs(sums[:, :-1]).sum(1) / sums[:, -1]


def _mean(sums: Array) -> Array:
    return sums[:, 0] / sums[:, 1]
