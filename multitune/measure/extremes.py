"""The rows that a model does worst and best on: a few of each, kept while all stream by.

How badly a row goes is the mean over its answers: of a category the negative logarithm of the true class's probability; of labels the
mean of that over all of them; of a number the distance in standard deviations; of a text one less the F1 of its words; and for a model
that embeds one less the cosine of its parts.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

from multitune.core.protocols import Answer, Category, Embedding, Labels, Needs, Number, Prediction, Sample, Text

WORST, BEST = 12, 6
LEAST = 1e-12


@dataclass(frozen=True)
class Kept:
    """One row with what was said of it. loss: how badly it went. truths: its answers' true values, where it has them."""

    sample: Sample
    prediction: Prediction
    loss: float
    truths: dict[str, Any]


@dataclass
class Extremes:
    """Keeps the few; `worst` and `best` give them in order."""

    needs: Needs
    num_worst: int = WORST
    num_best: int = BEST
    _high: list[tuple[float, str, Kept]] = field(default_factory=list)
    _low: list[tuple[float, str, Kept]] = field(default_factory=list)

    def update(self, sample: Sample, prediction: Prediction) -> None:
        """Take one row; one that lacks every answer is passed over."""
        truths = {name: sample.parts[name].value for name in self.needs.answers if name in sample.parts}
        losses = list(_losses(prediction, truths, self.needs))
        if losses:
            loss = sum(losses) / len(losses)
            kept = Kept(sample, prediction, loss, truths)
            _push(self._high, loss, kept, self.num_worst)
            _push(self._low, -loss, kept, self.num_best)

    def worst(self) -> list[Kept]:
        """The worst first."""
        return [kept for _, _, kept in sorted(self._high, key=lambda entry: entry[:2], reverse=True)]

    def best(self) -> list[Kept]:
        """The best first, none that is among the worst."""
        ids = {kept.sample.id for _, _, kept in self._high}
        ordered = sorted(self._low, key=lambda entry: entry[:2], reverse=True)
        return [kept for _, _, kept in ordered if kept.sample.id not in ids]


def _push(heap: list[tuple[float, str, Kept]], key: float, kept: Kept, most: int) -> None:
    entry = (key, kept.sample.id, kept)
    if len(heap) < most:
        if all(entry[:2] != other[:2] for other in heap):
            heapq.heappush(heap, entry)
    elif entry[:2] > heap[0][:2]:
        heapq.heapreplace(heap, entry)


def _losses(prediction: Prediction, truths: dict[str, Any], needs: Needs) -> Iterator[float]:
    for name, truth in truths.items():
        given = prediction.answers.get(name)
        if given is not None:
            yield _loss(given, truth, needs.answers[name].deviation)
    vectors = [given.value for given in prediction.answers.values() if isinstance(given, Embedding)]
    for left, right in combinations(vectors, 2):
        yield 1.0 - float(left @ right)


def _loss(given: Answer, truth: Any, deviation: float) -> float:
    match given:
        case Category():
            return -math.log(max(given.scores.get(truth, 0.0), LEAST))
        case Number():
            return abs(given.value - truth) / (deviation or 1.0)
        case Labels():
            right = (score if label in truth else 1.0 - score for label, score in given.scores.items())
            return -sum(math.log(max(share, LEAST)) for share in right) / max(1, len(given.scores))
        case Text():
            return 1.0 - _f1(_words(given.value), _words(str(truth)))
        case _:
            return float(given.value != truth)


def _words(text: str) -> Counter[str]:
    """Its words; of a text without spaces, as Chinese is written, its characters."""
    return Counter(text.lower().split() if " " in text.strip() else text.lower())


def _f1(given: Counter[str], truth: Counter[str]) -> float:
    total = given.total() + truth.total()
    return 2 * (given & truth).total() / total if total else 1.0
