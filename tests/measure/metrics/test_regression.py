"""Regression: the same figures as scikit-learn, in the user's units."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import mean_absolute_error, r2_score

from multitune.core.protocols import AnswerNeed, Number, Prediction
from multitune.core.randomness import generator
from multitune.measure.metrics.regression import Options, Regression, build


def _fed(truths: np.ndarray, given: np.ndarray, mean: float = 0.0) -> Regression:
    metric = build(Options(), "price", AnswerNeed("number", mean=mean))
    for row, (truth, said) in enumerate(zip(truths, given, strict=True)):
        metric.update(Prediction(str(row), {"price": Number(float(said))}), {"price": float(truth)})
    return metric


def _random(rows: int, *, offset: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    truths = generator("truth", rows).normal(size=rows) * 3 + offset
    return truths, truths + generator("error", rows).normal(size=rows)


@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_figures_equal_those_of_scikit_learn(offset: float) -> None:
    truths, given = _random(200, offset=offset)
    values = {figure.name: figure.value for figure in _fed(truths, given).compute(draws=0, seed=0)}
    assert values["mae"] == pytest.approx(mean_absolute_error(truths, given), rel=1e-9)
    assert values["r2"] == pytest.approx(r2_score(truths, given), rel=1e-9)


def test_the_interval_of_r2_equals_that_of_resampled_rows() -> None:
    truths, given = _random(100)
    random = generator(5)
    looped = [r2_score(truths[rows], given[rows]) for rows in (random.integers(100, size=100) for _ in range(1000))]
    figure = next(f for f in _fed(truths, given).compute(draws=1000, seed=0) if f.name == "r2")
    assert (figure.low, figure.high) == pytest.approx(np.quantile(looped, [0.025, 0.975]), abs=0.02)


def test_the_baseline_is_the_mean_of_the_train_split() -> None:
    truths, given = _random(50)
    values = {figure.name: figure.value for figure in _fed(truths, given, mean=0.5).baseline()}
    assert values["mean/mae"] == pytest.approx(np.abs(truths - 0.5).mean())
    assert values["mean/r2"] == pytest.approx(r2_score(truths, np.full(50, 0.5)))


def test_r2_is_left_out_where_all_true_values_are_equal() -> None:
    figures = list(_fed(np.array([2.0, 2.0]), np.array([1.0, 3.0])).compute(draws=20, seed=0))
    assert [(figure.name, figure.value) for figure in figures] == [("mae", 1.0)]


def test_nothing_is_given_where_no_row_had_the_answer() -> None:
    metric = _fed(np.array([]), np.array([]))
    assert [*metric.compute(draws=10, seed=0), *metric.baseline()] == []
