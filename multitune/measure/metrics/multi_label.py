"""Micro-F1, macro-F1, precision and recall of each label, and the share of rows with exactly the right labels.

What counts as predicted is what the model says: labels of a probability of one half or more. Macro-F1 is the mean over the labels that
occur, as truth or as prediction. Of a row only the number of its pair (true labels, predicted labels) is kept.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from multitune.core import catalog
from multitune.core.protocols import AnswerNeed, ByRow, Figure, Labels, Metric, Prediction
from multitune.measure.bootstrap import Array, interval_of_share, interval_of_weights, with_an_edge
from multitune.measure.paired import Kinds, Share

SERVES = ("labels",)
Pair = tuple[tuple[str, ...], tuple[str, ...]]


class Options(catalog.Options):
    """No options."""


def build(options: Options, answer: str, need: AnswerNeed) -> MultiLabel:
    """The metric of one answer of labels."""
    return MultiLabel(answer, need)


class MultiLabel(Metric):
    """Counts (true labels, predicted labels) pairs."""

    primary = "micro_f1"

    def __init__(self, answer: str, need: AnswerNeed) -> None:
        self._answer, self._need = answer, need
        self._pairs: dict[Pair, int] = {}
        self._rows = array("i")

    def update(self, prediction: Prediction, truth: Mapping[str, Any]) -> None:
        """Count one row; a label that the model does not know counts as missed."""
        given = prediction.answers.get(self._answer)
        if self._answer in truth and isinstance(given, Labels):
            pair = tuple(sorted(truth[self._answer])), tuple(sorted(given.value))
            self._rows.append(self._pairs.setdefault(pair, len(self._pairs)))

    def compute(self, *, draws: int, seed: int) -> Iterator[Figure]:
        """`micro_f1`, `macro_f1`, `exact_match`, then `class/<label>/precision` and `.../recall` without intervals."""
        if not self._rows:
            return
        table, counts = _Pairs(list(self._pairs)), np.bincount(self._rows, minlength=len(self._pairs)).astype(np.int64)
        every = counts[None].astype(np.float64)
        for name, statistic in (("micro_f1", table.micro_f1), ("macro_f1", table.macro_f1)):
            drawn = interval_of_weights(counts, statistic, draws=draws, seed=seed)
            low, high = with_an_edge(drawn, 0.0, 1.0, num_rows=len(self._rows)) if draws else drawn
            yield Figure(name, float(statistic(every)[0]), low, high, drawn=draws > 0)
        low, high = interval_of_share(table.exact, counts, draws=draws, seed=seed)
        yield Figure("exact_match", float(counts[table.exact].sum() / counts.sum()), low, high, drawn=draws > 0)
        hits, given, true = (sums[0] for sums in table.sums(every))
        for number, label in enumerate(table.labels):
            for name, total in (("precision", given[number]), ("recall", true[number])):
                if total:
                    value = float(hits[number] / total)
                    yield Figure(f"class/{label}/{name}", value, value, value, drawn=False)

    def by_row(self) -> Mapping[str, ByRow]:
        """`micro_f1`, `macro_f1` and `exact_match`."""
        if not self._rows:
            return {}
        table, kinds = _Pairs(list(self._pairs)), np.array(self._rows, np.int64)
        micro, macro = (Kinds(kinds, len(self._pairs), statistic) for statistic in (table.micro_f1, table.macro_f1))
        return {"micro_f1": micro, "macro_f1": macro, "exact_match": Share(table.exact[kinds])}

    def baseline(self) -> Iterator[Figure]:
        """`majority/micro_f1`: always the commonest labels of the train split, as many as a row here has on average."""
        if not self._rows or not self._need.counts:
            return
        sizes = np.array([len(true) for true, _ in self._pairs])[np.array(self._rows)]
        number = max(1, round(float(sizes.mean())))
        known = dict(zip(self._need.labels, self._need.counts, strict=True))
        always = tuple(sorted(sorted(known, key=lambda label: (-known[label], label))[:number]))
        counts = np.bincount(self._rows, minlength=len(self._pairs))[None].astype(np.float64)
        value = float(_Pairs([(true, always) for true, _ in self._pairs]).micro_f1(counts)[0])
        yield Figure("majority/micro_f1", value, value, value, drawn=False)


class _Pairs:
    """What each pair adds for each label: statistics of counts (draws, pairs)."""

    def __init__(self, pairs: list[Pair]) -> None:
        self.labels = sorted({label for pair in pairs for side in pair for label in side})
        index = {label: number for number, label in enumerate(self.labels)}
        self._true, self._given = (np.zeros((len(pairs), len(self.labels)), bool) for _ in range(2))
        for place, (true, given) in enumerate(pairs):
            self._true[place, [index[label] for label in true]] = True
            self._given[place, [index[label] for label in given]] = True
        self.exact: NDArray[np.bool_] = (self._true == self._given).all(1)

    def sums(self, counts: Array) -> tuple[Array, Array, Array]:
        """Hits, predicted and true rows of each label, (draws, labels)."""
        hits, given, true = (counts @ side.astype(np.float64) for side in (self._true & self._given, self._given, self._true))
        return hits, given, true

    def micro_f1(self, counts: Array) -> Array:
        """Of all labels together; 1 where no label is there and none predicted."""
        hits, given, true = (side.sum(1) for side in self.sums(counts))
        return np.divide(2 * hits, given + true, out=np.ones_like(hits), where=given + true > 0)

    def macro_f1(self, counts: Array) -> Array:
        """Mean over the labels that a draw holds; 1 where it holds none."""
        hits, given, true = self.sums(counts)
        both = given + true
        f1 = np.divide(2 * hits, both, out=np.zeros_like(hits), where=both > 0)
        held = (both > 0).sum(1)
        return np.divide(f1.sum(1), held, out=np.ones(len(counts)), where=held > 0)
