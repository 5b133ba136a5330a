"""Answers of several labels: the same figures as scikit-learn, with intervals over rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score, precision_score, recall_score

from multitune.core import catalog
from multitune.core.protocols import AnswerNeed, Category, Labels, Prediction
from multitune.core.randomness import generator

NAMES = ("a", "b", "c", "d")
NEED = AnswerNeed("labels", labels=NAMES, counts=(9, 7, 5, 1))


def drawn(rows: int, *, ties: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """True labels (rows, 4) and scores that know something of them."""
    random = generator("labels", rows)
    true = random.random((rows, 4)) < (0.6, 0.4, 0.3, 0.1)
    scores = 1 / (1 + np.exp(-(2 * true - 1 + random.normal(size=true.shape))))
    return true, (np.round(scores, 1) if ties else scores).astype(np.float32).astype(float)


def fed(name: str, true: np.ndarray, scores: np.ndarray) -> Any:
    metric = catalog.find("metric", name, {}).build("tags", NEED)
    for row, (line, truth) in enumerate(zip(scores.tolist(), true.tolist(), strict=True)):
        named = dict(zip(NAMES, line, strict=True))
        given = Labels(tuple(label for label, score in named.items() if score >= 0.5), named)
        metric.update(
            Prediction(str(row), {"tags": given}), {"tags": tuple(label for label, there in zip(NAMES, truth, strict=True) if there)}
        )
    return metric


def values(metric: Any, draws: int = 0) -> dict[str, float]:
    return {figure.name: figure.value for figure in metric.compute(draws=draws, seed=0)}


@pytest.mark.parametrize("ties", [False, True])
def test_average_precision_equals_scikit_learns(ties: bool) -> None:
    true, scores = drawn(80, ties=ties)
    found = values(fed("mean_average_precision", true, scores))
    each = [average_precision_score(true[:, place], scores[:, place]) for place in range(4)]
    assert [found[f"class/{label}/average_precision"] for label in NAMES] == pytest.approx(each)
    assert found["map"] == pytest.approx(np.mean(each))


def test_average_precision_of_drawn_rows_is_that_of_rows_given_as_often() -> None:
    true, scores = drawn(50, ties=True)
    rows = generator("drawn").integers(50, size=50)
    by_row = fed("mean_average_precision", true, scores).by_row()["map"](np.bincount(rows, minlength=50)[None].astype(float))
    assert by_row[0] == pytest.approx(values(fed("mean_average_precision", true[rows], scores[rows]))["map"])


def test_a_label_that_no_row_has_is_left_out_of_the_mean() -> None:
    true, scores = drawn(60)
    true[:, 3] = False
    found = values(fed("mean_average_precision", true, scores))
    assert "class/d/average_precision" not in found
    assert found["map"] == pytest.approx(np.mean([average_precision_score(true[:, place], scores[:, place]) for place in range(3)]))


def test_scores_that_say_nothing_reach_about_chance() -> None:
    true, _ = drawn(3000)
    metric = fed("mean_average_precision", true, generator("noise").random((3000, 4)))
    (chance,) = metric.baseline()
    assert chance.name == "chance/map"
    assert values(metric)["map"] == pytest.approx(chance.value, abs=0.03)


def test_a_category_is_one_label_against_the_rest() -> None:
    metric = catalog.find("metric", "mean_average_precision", {}).build("tags", AnswerNeed("category", labels=("a", "b")))
    for row, (truth, score) in enumerate((("a", 0.9), ("b", 0.8), ("a", 0.7))):
        metric.update(Prediction(str(row), {"tags": Category("a", {"a": score, "b": 1 - score})}), {"tags": truth})
    assert values(metric)["map"] == pytest.approx(((1 + 2 / 3) / 2 + 1 / 2) / 2)


def test_f1_precision_and_recall_equal_scikit_learns() -> None:
    true, scores = drawn(120)
    said, found = scores >= 0.5, values(fed("multi_label", true, scores))
    assert found["micro_f1"] == pytest.approx(f1_score(true, said, average="micro"))
    assert found["macro_f1"] == pytest.approx(f1_score(true, said, average="macro"))
    assert found["exact_match"] == pytest.approx((true == said).all(1).mean())
    assert [found[f"class/{label}/precision"] for label in NAMES] == pytest.approx(precision_score(true, said, average=None))
    assert [found[f"class/{label}/recall"] for label in NAMES] == pytest.approx(recall_score(true, said, average=None))


@pytest.mark.parametrize("name", ["multi_label", "mean_average_precision"])
def test_intervals_hold_their_values_and_by_row_says_the_same(name: str) -> None:
    metric = fed(name, *drawn(80))
    for figure in metric.compute(draws=100, seed=0):
        if figure.drawn:
            assert figure.low < figure.value < figure.high
            assert metric.by_row()[figure.name](np.ones((1, 80)))[0] == pytest.approx(figure.value)


def test_the_majority_names_the_commonest_labels_of_train() -> None:
    true = np.array([[True, True, False, False], [True, False, False, True]])
    (majority,) = fed("multi_label", true, true.astype(float)).baseline()
    assert (majority.name, majority.value) == ("majority/micro_f1", pytest.approx(0.75))


@pytest.mark.parametrize("name", ["multi_label", "mean_average_precision"])
def test_nothing_is_given_where_no_row_had_the_answer(name: str) -> None:
    metric = fed(name, np.empty((0, 4), bool), np.empty((0, 4)))
    assert [*metric.compute(draws=5, seed=0), *metric.by_row(), *metric.baseline()] == []
