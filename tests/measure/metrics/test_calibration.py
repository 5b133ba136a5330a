"""Calibration: by hand, by a loop over bins, and the log loss of scikit-learn."""

from __future__ import annotations

import gc
import tracemalloc

import numpy as np
import pytest
from sklearn.metrics import log_loss

from multitune.core import catalog
from multitune.core.protocols import AnswerNeed, Category, Prediction
from multitune.core.randomness import generator
from multitune.measure.metrics.calibration import Calibration, bins_of

LABELS = ("a", "b", "c")


def fed(scores: np.ndarray, truths: list[str], bins: int = 15) -> Calibration:
    metric = catalog.find("metric", "calibration", {"bins": bins}).build("x", AnswerNeed("category", labels=LABELS))
    for row, (line, truth) in enumerate(zip(scores.tolist(), truths, strict=True)):
        named = dict(zip(LABELS, line, strict=True))
        metric.update(Prediction(str(row), {"x": Category(max(named, key=lambda label: named[label]), named)}), {"x": truth})
    return metric


def drawn(rows: int) -> tuple[np.ndarray, list[str]]:
    """Probabilities that are true: the class of a row is drawn from them."""
    random = generator("calibration", rows)
    scores = random.dirichlet((1, 1, 1), size=rows)
    return scores, [LABELS[random.choice(3, p=line)] for line in scores]


def values(metric: Calibration, draws: int = 0) -> dict[str, float]:
    return {figure.name: figure.value for figure in metric.compute(draws=draws, seed=0)}


def test_a_confidence_on_an_edge_lies_in_the_bin_below_it() -> None:
    confidence = np.array([0.0, 0.1, 0.1000001, 0.3, 0.6, 0.7, 0.7000001, 1.0])
    assert bins_of(confidence, 10).tolist() == [0, 0, 1, 2, 5, 6, 7, 9]


def test_ece_equals_that_of_a_loop_over_bins() -> None:
    scores, truths = drawn(300)
    confidence, right = scores.max(1), np.array([LABELS[line.argmax()] == truth for line, truth in zip(scores, truths, strict=True)])
    total = 0.0
    for number in range(15):
        here = (confidence > number / 15) & (confidence <= (number + 1) / 15)
        if here.any():
            total += here.mean() * abs(right[here].mean() - confidence[here].mean())
    assert values(fed(scores, truths))["ece"] == pytest.approx(total)


def test_probabilities_that_are_true_have_a_small_ece_and_boasting_a_large_one() -> None:
    scores, truths = drawn(4000)
    sharp = scores**4 / (scores**4).sum(1, keepdims=True)
    assert values(fed(scores, truths))["ece"] < 0.04
    assert values(fed(sharp, truths))["ece"] > 0.15


def test_the_interval_of_ece_holds_the_figure_and_nothing_below_zero() -> None:
    for rows in range(100, 160, 4):
        ece = next(figure for figure in fed(*drawn(rows)).compute(draws=300, seed=0) if figure.name == "ece")
        assert 0 <= ece.low <= ece.value <= ece.high


def test_brier_and_log_loss_are_those_of_their_formulas() -> None:
    scores, truths = drawn(100)
    hot = np.array([[label == truth for label in LABELS] for truth in truths], float)
    found = values(fed(scores, truths))
    assert found["brier"] == pytest.approx(((scores - hot) ** 2).sum(1).mean())
    assert found["nll"] == pytest.approx(log_loss(truths, scores, labels=list(LABELS)))


def test_a_class_that_the_model_does_not_know_costs_the_most_and_stays_finite() -> None:
    found = values(fed(np.array([[1.0, 0.0, 0.0]]), ["new"]))
    assert found == {"ece": 1.0, "brier": 2.0, "nll": pytest.approx(-np.log(1e-15))}


def test_figures_have_intervals_and_the_same_by_row() -> None:
    metric = fed(*drawn(200))
    for figure in metric.compute(draws=200, seed=0):
        assert figure.low < figure.high
        assert metric.by_row()[figure.name](np.ones((1, 200)))[0] == pytest.approx(figure.value)


def test_the_reliability_curve_has_a_row_for_each_bin_that_has_rows() -> None:
    metric = fed(np.array([[0.6, 0.3, 0.1], [0.2, 0.55, 0.25], [0.9, 0.05, 0.05]]), ["a", "a", "a"], bins=10)
    head, *rows = metric.tables()["reliability"]
    assert head == ("above", "to", "rows", "confidence", "accuracy")
    assert rows == [("0.5000", "0.6000", "2", "0.5750", "0.5000"), ("0.8000", "0.9000", "1", "0.9000", "1.0000")]


def test_nothing_is_given_where_no_row_had_the_answer() -> None:
    metric = fed(np.empty((0, 3)), [])
    assert [*metric.compute(draws=5, seed=0), *metric.tables(), *metric.by_row()] == []


@pytest.mark.parametrize("name", ["calibration", "classification"])
def test_no_scores_are_kept_however_many_classes_there_are(name: str) -> None:
    labels = tuple(str(number) for number in range(500))
    metric = catalog.find("metric", name, {}).build("x", AnswerNeed("category", labels=labels))
    tracemalloc.start()
    for row in range(400):
        scores = dict.fromkeys(labels, (row + 1) / 1000)
        metric.update(Prediction(str(row), {"x": Category("0", scores)}), {"x": "0"})
    gc.collect()
    kept = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert kept < 400 * 100 < 400 * len(labels)
