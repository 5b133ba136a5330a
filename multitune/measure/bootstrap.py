"""How sure a figure is: 95 % bootstrap intervals that cost the memory of a block, however many draws; Wilson's for shares of 0 and 1.

Rows are drawn with replacement, which is a draw of how often each row counts; rows that are alike may be given once with a count.
Where rows come in groups (frames of one scene) the interval is that of independent rows, so it is too narrow.
Source: Efron and Tibshirani 1993, percentile interval.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from multitune.core.randomness import generator

Array = NDArray[np.float64]
BLOCK = 1 << 20
SHARES = (0.025, 0.975)
QUANTILE = 1.959963984540054  # of the normal distribution, at 0.975


def interval(
    rows: NDArray[np.generic], statistic: Callable[[Array], Array], *, draws: int, seed: int, one_sided: bool = False
) -> tuple[float, float]:
    """Low and high of a statistic that needs only sums over rows.

    rows (n, k) or (n,): what each row adds. statistic: sums (draws, k) -> values (draws,); put a 1 in a column to have the count.
    one_sided: draws lie to one side of the value, as those of a sum of absolute values do; they are brought back by how far their mean is
    from it (the bootstrap's estimate of bias; Efron and Tibshirani 1993, chapter 10), and none below 0.
    With no draws, or where no draw has a finite value, both ends are the value of all rows.
    """
    table = np.asarray(rows, np.float64)
    table = table[:, None] if table.ndim == 1 else table
    counts = np.ones(len(table), np.int64)
    drawn = _drawn(counts, lambda weights: statistic(weights @ table), draws=draws, seed=seed)
    if one_sided and draws:
        drawn = np.maximum(drawn - (drawn.mean() - float(statistic(table.sum(0, keepdims=True))[0])), 0.0)
    return _ends(drawn)


def interval_of_weights(counts: NDArray[np.int64], statistic: Callable[[Array], Array], *, draws: int, seed: int) -> tuple[float, float]:
    """Low and high of any statistic of weighted rows, such as a median.

    counts (n,): how many rows are like this one. statistic: weights (draws, n), whole numbers that add up to the rows -> values (draws,).
    """
    return _ends(_drawn(counts, statistic, draws=draws, seed=seed))


def _drawn(counts: NDArray[np.int64], statistic: Callable[[Array], Array], *, draws: int, seed: int) -> Array:
    """The finite values of draws; where there is none, the value of all rows."""
    values = np.concatenate([statistic(block) for block in weights(counts, draws=draws, seed=seed)]) if draws else np.empty(0)
    values = values[np.isfinite(values)]
    return values if len(values) else statistic(np.asarray(counts, np.float64)[None])


def _ends(drawn: Array) -> tuple[float, float]:
    if len(drawn) == 1:
        return float(drawn[0]), float(drawn[0])
    low, high = np.quantile(drawn, SHARES)
    return float(low), float(high)


def interval_of_share(hits: NDArray[np.bool_], counts: NDArray[np.int64], *, draws: int, seed: int) -> tuple[float, float]:
    """Low and high of the share of rows that are hits.

    hits (n,): whether rows of this kind are. counts (n,): how many rows are like this one.
    Where none or all are, every draw says the same as the rows, as if nothing were left open; there the interval is Wilson's.
    Source: Wilson 1927, J. Am. Stat. Assoc. 22(158):209-212, without correction for continuity.
    """
    if draws and (hits.all() or not hits.any()):
        num_rows = int(counts.sum())
        edge = num_rows / (num_rows + QUANTILE**2)
        return (edge, 1.0) if hits.all() else (0.0, 1.0 - edge)
    return interval_of_weights(counts, lambda drawn: drawn[:, hits].sum(1) / drawn.sum(1), draws=draws, seed=seed)


def with_an_edge(drawn: tuple[float, float], worst: float, best: float, *, num_rows: int) -> tuple[float, float]:
    """An interval that fell together at the worst or the best value there is, widened as if the figure were a share of rows (Wilson's).

    For figures such as macro-F1 and BLEU, of which every draw says the same where no row is wrong, or none right.
    """
    edge = num_rows / (num_rows + QUANTILE**2)
    if np.allclose(drawn, best):
        return worst + edge * (best - worst), best
    return (worst, best - edge * (best - worst)) if np.allclose(drawn, worst) else drawn


def weights(counts: NDArray[np.int64], *, draws: int, seed: int) -> Iterator[Array]:
    """Blocks (some draws, n) of how often each row was drawn; the draws do not depend on how they are cut into blocks."""
    random, num_rows, num_kinds = generator("bootstrap", seed), int(counts.sum()), len(counts)
    alike = num_kinds != num_rows
    size = max(1, BLOCK // max(num_kinds, 1))
    for start in range(0, draws, size):
        now = min(size, draws - start)
        if alike:
            yield random.multinomial(num_rows, counts / num_rows, size=now).astype(np.float64)
        else:
            drawn = random.integers(num_rows, size=(now, num_rows)) + np.arange(now)[:, None] * num_rows
            yield np.bincount(drawn.ravel(), minlength=now * num_rows).reshape(now, num_rows).astype(np.float64)
