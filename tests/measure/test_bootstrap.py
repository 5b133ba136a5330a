"""Bootstrap intervals: the same as a plain loop, true to their promise, flat in memory."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from multitune.core.randomness import generator
from multitune.measure.bootstrap import interval, interval_of_share, interval_of_weights, weights, with_an_edge


def _mean(sums: np.ndarray) -> np.ndarray:
    return sums[:, 0] / sums[:, 1]


def _with_ones(values: np.ndarray) -> np.ndarray:
    return np.stack([values, np.ones(len(values))], axis=1)


def test_an_interval_equals_that_of_a_loop_over_resampled_rows() -> None:
    rows = _with_ones(generator(1).normal(size=50))
    random = generator("bootstrap", 7)
    looped = [rows[random.integers(50, size=50), 0].mean() for _ in range(200)]
    assert interval(rows, _mean, draws=200, seed=7) == pytest.approx(np.quantile(looped, [0.025, 0.975]), abs=1e-12)


def test_rows_given_with_counts_have_the_interval_of_rows_given_one_by_one() -> None:
    values = generator(2).integers(0, 4, size=400)
    kinds, counts = np.unique(values, return_counts=True)
    alone = interval(_with_ones(values), _mean, draws=4000, seed=0)
    counted = interval_of_weights(counts, lambda w: w @ kinds / w.sum(1), draws=4000, seed=0)
    assert counted == pytest.approx(alone, abs=0.02)


def test_an_interval_covers_the_truth_about_nineteen_times_in_twenty() -> None:
    covered = 0
    for trial in range(200):
        hits = generator("trial", trial).random(150) < 0.7
        low, high = interval(_with_ones(hits.astype(float)), _mean, draws=300, seed=trial)
        covered += low <= 0.7 <= high
    assert 180 <= covered <= 199


def test_weights_add_up_to_the_rows() -> None:
    blocks = list(weights(np.array([3, 1, 6]), draws=20, seed=0))
    assert {float(total) for block in blocks for total in block.sum(1)} == {10.0}


def test_no_draws_give_the_value_itself() -> None:
    assert interval(_with_ones(np.array([1.0, 3.0])), _mean, draws=0, seed=0) == (2.0, 2.0)


def test_draws_without_a_finite_value_are_passed_over() -> None:
    rows = np.array([[0.0, 0.0], [1.0, 1.0]])
    with np.errstate(invalid="ignore"):
        assert interval(rows, _mean, draws=100, seed=0) == (1.0, 1.0)


def test_memory_does_not_grow_with_the_draws() -> None:
    rows = _with_ones(generator(3).normal(size=5000))
    peaks = []
    for draws in (400, 4000):
        tracemalloc.start()
        interval(rows, _mean, draws=draws, seed=0)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.1 * peaks[0]


def test_a_share_between_has_the_interval_of_its_rows() -> None:
    hits = generator(3).random(60) < 0.6
    alone = interval(_with_ones(hits), _mean, draws=300, seed=5)
    assert interval_of_share(hits, np.ones(60, np.int64), draws=300, seed=5) == alone


def test_a_share_of_one_or_none_leaves_what_wilson_leaves() -> None:
    counts = np.ones(18, np.int64)
    assert interval_of_share(counts > 0, counts, draws=10, seed=0) == pytest.approx((0.82412, 1.0), abs=1e-5)
    assert interval_of_share(counts < 0, counts, draws=10, seed=0) == pytest.approx((0.0, 0.17588), abs=1e-5)


def test_without_draws_a_share_of_one_has_no_interval() -> None:
    assert interval_of_share(np.array([True]), np.array([18]), draws=0, seed=0) == (1.0, 1.0)


def test_an_interval_that_fell_together_at_an_edge_is_widened_and_no_other() -> None:
    assert with_an_edge((100.0, 100.0), 0.0, 100.0, num_rows=18) == pytest.approx((82.412, 100.0), abs=1e-3)
    assert with_an_edge((0.0, 0.0), 0.0, 1.0, num_rows=18) == pytest.approx((0.0, 0.17588), abs=1e-5)
    assert with_an_edge((0.9, 1.0), 0.0, 1.0, num_rows=18) == (0.9, 1.0)
