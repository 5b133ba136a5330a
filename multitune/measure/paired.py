"""Two models on the same rows, or one model with a part and without it: how sure their difference is.

A metric says by `by_row` what its figure would be for any weighting of the rows that it counted. A paired bootstrap draws rows once and
reads both figures from the same draw, so what is hard about a row cancels out: the interval of a difference is narrower than that of two
sets of rows. For shares of right rows McNemar's exact test looks at the rows alone on which the two disagree.
Source: Efron and Tibshirani 1993, chapter 16; McNemar 1947, Psychometrika 12:153-157 (the exact, two-sided form).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from multitune.core.protocols import ByRow
from multitune.measure.bootstrap import QUANTILE, SHARES, Array, weights


@dataclass(frozen=True)
class Share:
    """The share of rows that are hits, bool (n,)."""

    hits: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.hits)

    def __call__(self, weights: Array) -> Array:
        """weights (draws, n) -> values (draws,)."""
        return weights @ self.hits.astype(np.float64) / weights.sum(1)


@dataclass(frozen=True)
class Sums:
    """A figure that needs only sums over rows: `rows` (n, k), `statistic` of sums (draws, k) -> values (draws,)."""

    rows: Array
    statistic: Callable[[Array], Array]

    def __len__(self) -> int:
        return len(self.rows)

    def __call__(self, weights: Array) -> Array:
        """weights (draws, n) -> values (draws,)."""
        return self.statistic(weights @ self.rows)


@dataclass(frozen=True)
class Kinds:
    """A figure of how often each kind of row is there.

    kind (n,): that of each row, less than `number`. statistic: counts (draws, number) -> values (draws,).
    """

    kind: NDArray[np.int64]
    number: int
    statistic: Callable[[Array], Array]

    def __len__(self) -> int:
        return len(self.kind)

    def __call__(self, weights: Array) -> Array:
        """weights (draws, n) -> values (draws,)."""
        places = self.kind[None] + np.arange(len(weights))[:, None] * self.number
        counts = np.bincount(places.ravel(), weights.ravel(), minlength=len(weights) * self.number).astype(np.float64)
        return self.statistic(counts.reshape(len(weights), self.number))


@dataclass(frozen=True)
class Difference:
    """One figure minus another, with its 95 % interval.

    chance: twice the share of draws on the rarer side of zero, as a p-value is read (1: no difference). mcnemar: the exact p-value for
    shares of rows, else None. Without draws both ends are the value and `chance` is 1.
    """

    value: float
    low: float
    high: float
    chance: float
    mcnemar: float | None = None


def difference(one: ByRow, other: ByRow, *, draws: int, seed: int) -> Difference:
    """What one figure is above another, both of the same rows in the same order."""
    num_rows = len(one)
    assert num_rows == len(other)
    every = np.ones((1, num_rows))
    value = float((one(every) - other(every))[0])
    test = _mcnemar(one, other) if isinstance(one, Share) and isinstance(other, Share) else None
    if not draws:
        return Difference(value, value, value, 1.0, test)
    if test is not None and not _disagree(one, other).any():  # no draw differs, as if nothing were left open: Wilson's edge of no hit
        edge = 1 - num_rows / (num_rows + QUANTILE**2)
        return Difference(value, -edge, edge, 1.0, test)
    found = np.concatenate([one(drawn) - other(drawn) for drawn in weights(np.ones(num_rows, np.int64), draws=draws, seed=seed)])
    found = found[np.isfinite(found)]
    if not len(found):
        return Difference(value, value, value, 1.0, test)
    low, high = np.quantile(found, SHARES)
    rarer = min(int((found <= 0).sum()), int((found >= 0).sum()))
    return Difference(value, float(low), float(high), min(1.0, 2 * (rarer + 1) / (len(found) + 1)), test)


def _disagree(one: ByRow, other: ByRow) -> NDArray[np.bool_]:
    assert isinstance(one, Share)
    assert isinstance(other, Share)
    return one.hits != other.hits


def _mcnemar(one: Share, other: Share) -> float:
    """How likely rows on which only one of the two is right are so unevenly divided, were both equally good."""
    ahead, behind = int((one.hits & ~other.hits).sum()), int((~one.hits & other.hits).sum())
    number, few = ahead + behind, min(ahead, behind)
    tail = sum(
        math.exp(math.lgamma(number + 1) - math.lgamma(k + 1) - math.lgamma(number - k + 1) - number * math.log(2)) for k in range(few + 1)
    )
    return min(1.0, 2 * tail)
