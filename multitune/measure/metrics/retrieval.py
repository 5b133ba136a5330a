"""Recall at 1, 5 and 10 and the median rank, from every part to every other.

The candidates for a row are all rows of the split that have both parts. A hit is the row itself, or, with `match`, any row with an equal
value of that column; the best hit counts. Candidates as near as the hit (to 1e-6) stand before it: ties never help.
Embeddings are kept, similarities only for a block of rows at a time.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping
from itertools import permutations
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from multitune.core import catalog
from multitune.core.errors import DataError
from multitune.core.protocols import AnswerNeed, ByRow, Embedding, Figure, Metric, Prediction
from multitune.measure.bootstrap import Array, interval_of_share, interval_of_weights
from multitune.measure.paired import Kinds, Share

SERVES = ("",)
DEPTHS = (1, 5, 10)
TIE = 1e-6
BLOCK = 1 << 21
Ints = NDArray[np.int64]


class Options(catalog.Options):
    """match: the column whose equal values are hits; empty: the same id."""

    match: str = Field(default="", json_schema_extra=catalog.COLUMN_OF_EVERY_ROW)


def build(options: Options, answer: str, need: AnswerNeed) -> Retrieval:
    """The metric over all embeddings of a model."""
    return Retrieval(options.match)


class Retrieval(Metric):
    """Keeps the embeddings of every part, and what makes a row a hit."""

    primary = "r_at_1"
    otherwise = ("median_rank",)

    def __init__(self, match: str) -> None:
        self.match = match
        self.codes: dict[str, int] = {}
        self.hits = array("q")
        self.parts: dict[str, tuple[array[int], array[float]]] = {}

    def update(self, prediction: Prediction, truth: Mapping[str, Any]) -> None:
        """Keep one row's embeddings.

        Raises: DataError if the row does not have the column to match.
        """
        if self.match and self.match not in truth:
            raise DataError("evaluate.match", f'row {prediction.id} has no "{self.match}".', "Name a column that every row has.")
        value = str(truth[self.match]) if self.match else prediction.id
        row = len(self.hits)
        self.hits.append(self.codes.setdefault(value, len(self.codes)))
        for part, given in prediction.answers.items():
            if isinstance(given, Embedding):
                rows, values = self.parts.setdefault(part, (array("q"), array("f")))
                rows.append(row)
                values.frombytes(np.ascontiguousarray(given.value, np.float32).tobytes())

    def compute(self, *, draws: int, seed: int) -> Iterator[Figure]:
        """`<from>_to_<to>/r_at_1`, `r_at_5`, `r_at_10` and `median_rank`."""
        for name, hits, source, target in self._pairs():
            ranks, counts = np.unique(ranks_of(source, target, hits), return_counts=True)
            for depth in DEPTHS:
                near = ranks <= depth
                low, high = interval_of_share(near, counts, draws=draws, seed=seed)
                yield Figure(f"{name}/r_at_{depth}", float(counts[near].sum() / counts.sum()), low, high, drawn=draws > 0)
            low, high = interval_of_weights(counts, lambda weights, ranks=ranks: _median(ranks, weights), draws=draws, seed=seed)
            value = float(_median(ranks, counts[None].astype(np.float64))[0])
            yield Figure(f"{name}/median_rank", value, low, high, drawn=draws > 0)

    def by_row(self) -> Mapping[str, ByRow]:
        """All of `compute`; the candidates stay as they are, what is drawn are the rows that ask."""
        found: dict[str, ByRow] = {}
        for name, hits, source, target in self._pairs():
            ranks = ranks_of(source, target, hits)
            kinds, kind = np.unique(ranks, return_inverse=True)
            found |= {f"{name}/r_at_{depth}": Share(ranks <= depth) for depth in DEPTHS}
            found[f"{name}/median_rank"] = Kinds(kind, len(kinds), lambda weights, kinds=kinds: _median(kinds, weights))
        return found

    def baseline(self) -> Iterator[Figure]:
        """`chance/<from>_to_<to>/...`: what a random order of the candidates reaches on average."""
        for name, hits, _, _ in self._pairs():
            reached = chance(hits)
            values = {f"r_at_{depth}": float(reached[min(depth, len(reached)) - 1]) for depth in DEPTHS}
            values["median_rank"] = float(np.searchsorted(reached, 0.5 - 1e-12) + 1)
            for figure, value in values.items():
                yield Figure(f"chance/{name}/{figure}", value, value, value, drawn=False)

    def _pairs(self) -> Iterator[tuple[str, Ints, NDArray[np.float32], NDArray[np.float32]]]:
        hits = np.array(self.hits, np.int64)
        for source, target in permutations(sorted(self.parts), 2):
            here, there = (np.array(self.parts[part][0], np.int64) for part in (source, target))
            _, left, right = np.intersect1d(here, there, assume_unique=True, return_indices=True)
            if len(left):
                yield f"{source}_to_{target}", hits[here[left]], self._matrix(source)[left], self._matrix(target)[right]

    def _matrix(self, part: str) -> NDArray[np.float32]:
        rows, values = self.parts[part]
        return np.frombuffer(values, np.float32).reshape(len(rows), -1)


def ranks_of(source: NDArray[np.float32], target: NDArray[np.float32], hits: Ints) -> Ints:
    """The rank, from 1, of each row's best hit among all rows of `target`, ties counted against it.

    source, target (n, d); hits (n,): equal codes are hits of one another.
    """
    ranks, size = np.empty(len(source), np.int64), max(1, BLOCK // len(target))
    for start in range(0, len(source), size):
        here = slice(start, start + size)
        scores = source[here] @ target.T
        hit = hits[here, None] == hits[None]
        best = np.where(hit, scores, -np.inf).max(1, keepdims=True)
        ranks[here] = 1 + (~hit & (scores >= best - TIE)).sum(1)
    return ranks


def chance(hits: Ints) -> Array:
    """Entry k - 1 is the chance that the best hit of a row stands at rank k or before, in a random order, mean over rows."""
    num_rows = len(hits)
    _, group = np.unique(hits, return_inverse=True)
    sizes, rows = np.unique(np.bincount(group)[group], return_counts=True)
    missed, later = np.zeros(num_rows), np.arange(num_rows)
    for size, count in zip(sizes, rows, strict=True):
        missed += count / num_rows * np.cumprod(np.maximum(num_rows - size - later, 0) / (num_rows - later))
    return 1 - missed


def _median(ranks: Ints, weights: Array) -> Array:
    """The median of each draw: ranks (kinds of rank,) sorted, weights (draws, kinds of rank)."""
    below, total = weights.cumsum(1), weights.sum(1, keepdims=True)
    lower, upper = ((below < np.ceil(at)).sum(1) for at in (total / 2, (total + 1) / 2))
    return (ranks[lower] + ranks[upper]) / 2
