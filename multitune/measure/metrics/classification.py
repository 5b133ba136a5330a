"""Accuracy, macro-F1, precision and recall of each class, and the confusion of classes.

Of a row only the number of its pair (true class, predicted class) is kept, four bytes, no scores. Macro-F1 is the mean of F1 over the
classes that occur, as truth or as prediction (as in scikit-learn).
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from multitune.core import catalog
from multitune.core.protocols import AnswerNeed, ByRow, Category, Figure, Metric, Prediction
from multitune.measure.bootstrap import Array, interval_of_share, interval_of_weights, with_an_edge
from multitune.measure.paired import Kinds, Share

SERVES = ("category",)
WIDEST = 40


class Options(catalog.Options):
    """No options."""


def build(options: Options, answer: str, need: AnswerNeed) -> Classification:
    """The metric of one category answer."""
    return Classification(answer, need)


class Classification(Metric):
    """Counts (truth, prediction) pairs."""

    primary = "accuracy"

    def __init__(self, answer: str, need: AnswerNeed) -> None:
        self.answer, self.need = answer, need
        self.cells: Counter[tuple[str, str]] = Counter()
        self._numbers: dict[tuple[str, str], int] = {}  # in the order in which pairs were met
        self._rows = array("i")

    def update(self, prediction: Prediction, truth: Mapping[str, Any]) -> None:
        """Count one row; a class that the model does not know counts as wrongly answered."""
        given = prediction.answers.get(self.answer)
        if self.answer in truth and isinstance(given, Category):
            cell = truth[self.answer], given.value
            self.cells[cell] += 1
            self._rows.append(self._numbers.setdefault(cell, len(self._numbers)))

    def compute(self, *, draws: int, seed: int) -> Iterator[Figure]:
        """`accuracy`, `macro_f1`, then `class/<label>/precision` and `.../recall` without intervals."""
        if not self.cells:
            return
        table = _Cells(self.cells)
        low, high = interval_of_share(table.right, table.counts, draws=draws, seed=seed)
        yield Figure("accuracy", float(table.counts[table.right].sum() / table.counts.sum()), low, high, drawn=draws > 0)
        drawn = interval_of_weights(table.counts, table.macro_f1, draws=draws, seed=seed)
        low, high = with_an_edge(drawn, 0.0, 1.0, num_rows=int(table.counts.sum())) if draws else drawn
        yield Figure("macro_f1", float(table.macro_f1(table.counts[None].astype(np.float64))[0]), low, high, drawn=draws > 0)
        for label in table.labels:
            hits = self.cells[label, label]
            for name, place in (("precision", 1), ("recall", 0)):
                total = sum(n for cell, n in self.cells.items() if cell[place] == label)
                if total:
                    yield Figure(f"class/{label}/{name}", hits / total, hits / total, hits / total, drawn=False)

    def baseline(self) -> Iterator[Figure]:
        """`majority/accuracy`: always the commonest class of the train split (where that is not known, of these rows)."""
        truths: Counter[str] = Counter()
        for (truth, _), count in self.cells.items():
            truths[truth] += count
        if not truths:
            return
        known = dict(zip(self.need.labels, self.need.counts, strict=True)) if self.need.counts else truths
        value = truths[max(sorted(known), key=lambda label: known[label])] / sum(truths.values())
        yield Figure("majority/accuracy", value, value, value, drawn=False)

    def by_row(self) -> Mapping[str, ByRow]:
        """`accuracy` and `macro_f1`."""
        if not self.cells:
            return {}
        table, numbers = _Cells(self.cells), np.array(self._rows, np.int64)
        places = np.array([table.ordered.index(cell) for cell in self._numbers], np.int64)[numbers]
        return {"accuracy": Share(table.right[places]), "macro_f1": Kinds(places, len(table.ordered), table.macro_f1)}

    def tables(self) -> Mapping[str, Sequence[Sequence[str]]]:
        """`confusion`: a row for each true class; with many classes, the commonest mistakes instead."""
        labels = sorted({label for cell in self.cells for label in cell})
        if not labels:
            return {}
        if len(labels) > WIDEST:
            wrong = [(cell, n) for cell, n in self.cells.most_common() if cell[0] != cell[1]][:WIDEST]
            return {"confusion": [("truth", "prediction", "rows"), *((t, p, str(n)) for (t, p), n in wrong)]}
        rows = [(truth, *(str(self.cells[truth, label]) for label in labels)) for truth in labels]
        return {"confusion": [("truth \\ prediction", *labels), *rows]}


class _Cells:
    """The cells that occur as arrays, ordered by true class: statistics of weights (draws, cells)."""

    def __init__(self, cells: Mapping[tuple[str, str], int]) -> None:
        self.labels = sorted({label for cell in cells for label in cell})
        index = {label: i for i, label in enumerate(self.labels)}
        self.ordered = ordered = sorted(cells)
        self.counts: NDArray[np.int64] = np.array([cells[cell] for cell in ordered], np.int64)
        self.truth = np.array([index[truth] for truth, _ in ordered])
        self.given = np.array([index[given] for _, given in ordered])
        self.right: NDArray[np.bool_] = self.truth == self.given

    def macro_f1(self, weights: Array) -> Array:
        """Mean over classes of 2 hits / (true + predicted), over the classes that a draw holds."""
        both = _sums(weights, self.truth, len(self.labels)) + _sums(weights, self.given, len(self.labels))
        hits = np.zeros_like(both)
        hits[:, self.truth[self.right]] = weights[:, self.right]
        f1 = np.divide(2 * hits, both, out=np.zeros_like(both), where=both > 0)
        return f1.sum(1) / (both > 0).sum(1)


def _sums(weights: Array, group: NDArray[np.int64], num_groups: int) -> Array:
    order = np.argsort(group, kind="stable")
    found, starts = np.unique(group[order], return_index=True)
    sums = np.zeros((len(weights), num_groups))
    sums[:, found] = np.add.reduceat(weights[:, order], starts, axis=1)
    return sums
