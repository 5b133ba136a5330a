"""How near written answers are to the true ones: corpus BLEU (0 to 100) and the share that is exactly right.

BLEU is sacrebleu's (13a tokens, exponential smoothing, one reference). Its interval draws sentences and adds up their counts, which
gives the corpus BLEU of the drawn sentences. A match is exact after white space at the ends is taken off and runs of it made one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sacrebleu.metrics.bleu import BLEU

from multitune.core import catalog
from multitune.core.protocols import AnswerNeed, ByRow, Figure, Metric, Prediction, Text
from multitune.measure.bootstrap import interval, interval_of_share, with_an_edge
from multitune.measure.paired import Share, Sums

SERVES = ("text",)
ORDER = 4
BEST = 100.0


class Options(catalog.Options):
    """No options."""


class TextMetric(Metric):
    """Streams sentence statistics: ten numbers a row, no strings."""

    primary = "bleu"

    def __init__(self, answer: str) -> None:
        self._answer = answer
        self._sentence = BLEU(effective_order=True, max_ngram_order=ORDER)
        self._rows: list[list[float]] = []
        self._exact: list[bool] = []

    def update(self, prediction: Prediction, truth: Mapping[str, Any]) -> None:
        """Add one row; a row without the true answer is not counted."""
        said = prediction.answers[self._answer]
        if self._answer not in truth or not isinstance(said, Text):
            return
        score = self._sentence.sentence_score(said.value, [truth[self._answer]])
        self._rows.append([score.sys_len, score.ref_len, *score.counts, *score.totals])
        self._exact.append(said.value.split() == truth[self._answer].split())

    def compute(self, *, draws: int, seed: int) -> Iterator[Figure]:
        """`bleu` and `exact_match`; nothing if no row had the answer."""
        if not self._rows:
            return
        rows = np.asarray(self._rows, np.float64)
        drawn = interval(rows, _bleu, draws=draws, seed=seed)
        low, high = with_an_edge(drawn, 0.0, BEST, num_rows=len(rows)) if draws else drawn
        yield Figure("bleu", float(_bleu(rows.sum(0, keepdims=True))[0]), low, high, drawn=draws > 0)
        exact = np.array(self._exact)
        low, high = interval_of_share(exact, np.ones(len(exact), np.int64), draws=draws, seed=seed)
        yield Figure("exact_match", float(exact.mean()), low, high, drawn=draws > 0)

    def by_row(self) -> Mapping[str, ByRow]:
        """`bleu` and `exact_match`."""
        if not self._rows:
            return {}
        return {"bleu": Sums(np.asarray(self._rows, np.float64), _bleu), "exact_match": Share(np.array(self._exact))}


def build(options: Options, answer: str, need: AnswerNeed) -> TextMetric:
    """The metric of one text answer."""
    return TextMetric(answer)


def _bleu(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.array([_score(row) for row in sums.astype(int).tolist()])


def _score(row: list[int]) -> float:
    said, true, counts, totals = row[0], row[1], row[2 : 2 + ORDER], row[2 + ORDER :]
    return BLEU.compute_bleu(counts, totals, sys_len=said, ref_len=true, smooth_method="exp").score
