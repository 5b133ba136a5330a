"""Classification: the same figures as scikit-learn, from counts alone."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, precision_score, recall_score

from multitune.core.protocols import AnswerNeed, Category, Prediction
from multitune.core.randomness import generator
from multitune.measure.metrics.classification import Classification, Options, build

LABELS = ("a", "b", "c", "d")


def _fed(truths: list[str], given: list[str], need: AnswerNeed | None = None) -> Classification:
    metric = build(Options(), "label", need or AnswerNeed("category", labels=LABELS))
    for row, (truth, said) in enumerate(zip(truths, given, strict=True)):
        metric.update(Prediction(str(row), {"label": Category(said, {said: 1.0})}), {"label": truth})
    return metric


def _random(rows: int, labels: tuple[str, ...] = LABELS) -> tuple[list[str], list[str]]:
    random = generator("rows", rows)
    truths = [labels[i] for i in random.integers(len(labels), size=rows)]
    return truths, [t if random.random() < 0.6 else labels[random.integers(len(labels))] for t in truths]


def _values(metric: Classification) -> dict[str, float]:
    return {figure.name: figure.value for figure in metric.compute(draws=0, seed=0)}


@pytest.mark.parametrize("rows", [3, 20, 300])
def test_figures_equal_those_of_scikit_learn(rows: int) -> None:
    truths, given = _random(rows)
    values = _values(_fed(truths, given))
    assert values["accuracy"] == pytest.approx(accuracy_score(truths, given))
    assert values["macro_f1"] == pytest.approx(f1_score(truths, given, average="macro", zero_division=0))
    present = sorted(set(truths))
    recalls = recall_score(truths, given, average=None, labels=present)
    assert [values[f"class/{label}/recall"] for label in present] == pytest.approx(recalls)
    said = sorted(set(given))
    precisions = precision_score(truths, given, average=None, labels=said)
    assert [values[f"class/{label}/precision"] for label in said] == pytest.approx(precisions)


def test_the_interval_of_macro_f1_equals_that_of_resampled_rows() -> None:
    truths, given = (np.array(values) for values in _random(200))
    random = generator(5)
    drawn = [random.integers(200, size=200) for _ in range(500)]
    looped = [f1_score(truths[rows], given[rows], average="macro", zero_division=0) for rows in drawn]
    figure = next(f for f in _fed(list(truths), list(given)).compute(draws=2000, seed=0) if f.name == "macro_f1")
    assert (figure.low, figure.high) == pytest.approx(np.quantile(looped, [0.025, 0.975]), abs=0.02)
    assert figure.low < figure.value < figure.high


def test_the_confusion_table_equals_scikit_learns() -> None:
    truths, given = _random(60)
    head, *rows = _fed(truths, given).tables()["confusion"]
    assert list(head[1:]) == list(LABELS)
    assert [[int(cell) for cell in row[1:]] for row in rows] == confusion_matrix(truths, given, labels=LABELS).tolist()


def test_many_classes_give_the_commonest_mistakes_instead() -> None:
    labels = tuple(f"class {i}" for i in range(60))
    truths, given = _random(2000, labels)
    rows = _fed(truths, given).tables()["confusion"]
    assert rows[0] == ("truth", "prediction", "rows")
    assert len(rows) == 41


def test_the_majority_is_that_of_the_train_split() -> None:
    need = AnswerNeed("category", labels=("a", "b"), counts=(9, 1))
    metric = _fed(["a", "b", "b", "b"], ["a", "a", "b", "b"], need)
    assert [(figure.name, figure.value) for figure in metric.baseline()] == [("majority/accuracy", 0.25)]


def test_a_class_that_the_model_does_not_know_counts_as_wrong() -> None:
    assert _values(_fed(["new", "a"], ["a", "a"]))["accuracy"] == 0.5


def test_a_row_without_the_answer_is_passed_over() -> None:
    metric = _fed(["a"], ["a"])
    metric.update(Prediction("x", {"label": Category("b", {"b": 1.0})}), {})
    assert _values(metric)["accuracy"] == 1.0


def test_nothing_is_given_where_no_row_had_the_answer() -> None:
    metric = _fed([], [])
    assert [*metric.compute(draws=10, seed=0), *metric.baseline(), *metric.tables()] == []


def test_memory_grows_with_the_cells_and_not_with_the_rows() -> None:
    truths, given = _random(3000)
    assert sum(1 for _ in _fed(truths, given).cells) <= len(LABELS) ** 2
