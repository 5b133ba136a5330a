"""Mean average precision: how well each label's scores put the rows that have it before those that do not.

The average precision of a label is the area under its precision over recall, as steps (no interpolation), rows of equal scores taken
together. The mean is over the labels that some row has; the others are left out. For labels, and for a category as one label against the
rest. Exact, so unlike other metrics it keeps every score, four bytes for a row and label.
Source: as scikit-learn's `average_precision_score`.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from multitune.core import catalog
from multitune.core.protocols import AnswerNeed, ByRow, Category, Figure, Labels, Metric, Prediction
from multitune.measure.bootstrap import Array, interval_of_weights

SERVES = ("labels", "category")


class Options(catalog.Options):
    """No options."""


def build(options: Options, answer: str, need: AnswerNeed) -> MeanAveragePrecision:
    """The metric of one answer of labels or of a category."""
    return MeanAveragePrecision(answer, need)


class MeanAveragePrecision(Metric):
    """Keeps the scores of each row, and its true labels as numbers."""

    primary = "map"

    def __init__(self, answer: str, need: AnswerNeed) -> None:
        self._answer, self._labels = answer, need.labels
        self._number = {label: number for number, label in enumerate(need.labels)}
        self._scores = array("f")
        self._true: list[tuple[int, ...]] = []

    def update(self, prediction: Prediction, truth: Mapping[str, Any]) -> None:
        """Take one row; a label that the model does not know is passed over."""
        given = prediction.answers.get(self._answer)
        if self._answer not in truth or not isinstance(given, Category | Labels):
            return
        true = truth[self._answer]
        named = (true,) if isinstance(true, str) else true
        self._true.append(tuple(self._number[label] for label in named if label in self._number))
        self._scores.extend(given.scores[label] for label in self._labels)

    def compute(self, *, draws: int, seed: int) -> Iterator[Figure]:
        """`map`, then `class/<label>/average_precision` without intervals."""
        measured = self._measured()
        if measured is None:
            return
        counts = np.ones(len(self._true), np.int64)
        low, high = interval_of_weights(counts, measured, draws=draws, seed=seed)
        each = measured.of_labels(counts[None].astype(np.float64))[:, 0]
        yield Figure("map", float(each.mean()), low, high, drawn=draws > 0)
        for number, value in zip(measured.there, each.tolist(), strict=True):
            yield Figure(f"class/{self._labels[number]}/average_precision", value, value, value, drawn=False)

    def by_row(self) -> Mapping[str, ByRow]:
        """`map`."""
        measured = self._measured()
        return {} if measured is None else {"map": measured}

    def baseline(self) -> Iterator[Figure]:
        """`chance/map`: what scores that say nothing reach on average, the mean share of rows that have a label."""
        measured = self._measured()
        if measured is not None:
            value = float(np.mean([rows.mean() for rows in measured.true]))
            yield Figure("chance/map", value, value, value, drawn=False)

    def _measured(self) -> _Ranked | None:
        true = np.zeros((len(self._true), len(self._labels)), bool)
        for row, numbers in enumerate(self._true):
            true[row, list(numbers)] = True
        there = [number for number in range(len(self._labels)) if true[:, number].any()]
        if not there:
            return None
        scores = np.array(self._scores, np.float32).reshape(true.shape)
        return _Ranked(there, scores[:, there].T, true[:, there].T)


class _Ranked:
    """Rows in the order of each label's scores: the mean average precision of weighted rows."""

    def __init__(self, there: list[int], scores: NDArray[np.float32], true: NDArray[np.bool_]) -> None:
        self.there, self.true = there, true
        self._order = np.argsort(-scores, axis=1, kind="stable")
        ranked = np.take_along_axis(scores, self._order, axis=1)
        last = np.ones(ranked.shape, bool)  # of rows with equal scores
        last[:, :-1] = ranked[:, :-1] != ranked[:, 1:]
        self._ends = [np.flatnonzero(row) for row in last]

    def __len__(self) -> int:
        return self.true.shape[1]

    def __call__(self, weights: Array) -> Array:
        """weights (draws, rows) -> means over the labels that a draw holds (draws,); not finite where it holds none."""
        values = self.of_labels(weights)
        held = np.isfinite(values)
        total = np.where(held, values, 0.0).sum(0)
        return np.divide(total, held.sum(0), out=np.full(len(weights), np.nan), where=held.any(0))

    def of_labels(self, weights: Array) -> Array:
        """weights (draws, rows) -> average precisions (labels, draws); not finite where no row of a draw has the label."""
        return np.stack([self._one(weights, number) for number in range(len(self.there))])

    def _one(self, weights: Array, number: int) -> Array:
        order, ends = self._order[number], self._ends[number]
        drawn = weights[:, order]
        taken = drawn.cumsum(1)[:, ends]
        hits = (drawn * self.true[number][order]).cumsum(1)[:, ends]
        precision = np.divide(hits, taken, out=np.zeros_like(hits), where=taken > 0)
        gained = np.diff(hits, axis=1, prepend=0.0)
        total = hits[:, -1]
        return np.divide((gained * precision).sum(1), total, out=np.full(len(weights), np.nan), where=total > 0)
