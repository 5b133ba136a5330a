"""Differences of two models on the same rows: paired draws, McNemar's test, the edges."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from multitune.core import catalog
from multitune.core.protocols import AnswerNeed, Category, Number, Prediction, Text
from multitune.core.randomness import generator
from multitune.measure.bootstrap import interval_of_share
from multitune.measure.paired import Share, difference


def two(rows: int = 400, better: float = 0.03) -> tuple[np.ndarray, np.ndarray]:
    """Hits of two models that find the same rows hard; the first is right in a few more."""
    random = generator("two", rows)
    hard = random.random(rows) < 0.3
    other = ~hard
    return other | (hard & (random.random(rows) < better / 0.3)), other


def test_the_interval_of_a_difference_equals_that_of_a_loop_over_the_same_rows_of_both() -> None:
    one, other = two(60, 0.1)
    random = generator("bootstrap", 7)
    drawn = [random.integers(60, size=60) for _ in range(200)]
    looped = [one[rows].mean() - other[rows].mean() for rows in drawn]
    found = difference(Share(one), Share(other), draws=200, seed=7)
    assert (found.low, found.high) == pytest.approx(np.quantile(looped, [0.025, 0.975]), abs=1e-12)


def test_models_that_err_on_the_same_rows_have_a_narrower_interval_than_two_sets_of_rows() -> None:
    one, other = two()
    found = difference(Share(one), Share(other), draws=1000, seed=0)
    assert found.low > 0
    counts = np.ones(len(one), np.int64)
    apart = [interval_of_share(hits, counts, draws=1000, seed=seed) for seed, hits in enumerate((one, other))]
    wide = np.hypot(*(high - low for low, high in apart))
    assert found.high - found.low < wide / 2
    assert apart[0][0] < apart[1][1]  # as two sets of rows they could be equal


def test_the_exact_test_of_mcnemar_counts_the_rows_on_which_they_disagree() -> None:
    hits = np.array([True] * 8 + [False] * 2 + [True] * 20)
    other = np.array([False] * 8 + [True] * 2 + [True] * 20)
    found = difference(Share(hits), Share(other), draws=100, seed=0)
    assert found.mcnemar == pytest.approx(2 * (1 + 10 + 45) / 2**10)


def test_a_chance_is_small_where_every_draw_is_on_one_side_and_one_where_none_differs() -> None:
    one, other = two(400, 0.2)
    assert difference(Share(one), Share(other), draws=999, seed=0).chance == pytest.approx(0.002)
    same = difference(Share(one), Share(one), draws=999, seed=0)
    assert (same.value, same.chance, same.mcnemar) == (0.0, 1.0, 1.0)


def test_models_that_never_disagree_leave_what_wilson_leaves() -> None:
    same = difference(Share(np.ones(18, bool)), Share(np.ones(18, bool)), draws=100, seed=0)
    assert (same.low, same.high) == pytest.approx((-0.17588, 0.17588), abs=1e-5)


def test_without_draws_both_ends_are_the_value() -> None:
    one, other = two()
    found = difference(Share(one), Share(other), draws=0, seed=0)
    assert found.low == found.value == found.high == one.mean() - other.mean()


@pytest.mark.parametrize("name", ["classification", "regression", "text", "mentions"])
def test_a_figure_by_row_is_the_figure_itself_for_whole_rows_and_for_drawn_ones(name: str) -> None:
    random = generator("by row", 3)
    rows = [made(name, row, random) for row in range(40)]
    drawn = random.integers(40, size=40)
    weights = np.stack([np.ones(40), np.bincount(drawn, minlength=40)])
    by_row = {figure: found(weights) for figure, found in fed(name, rows).by_row().items()}
    for place, chosen in enumerate((rows, [rows[index] for index in drawn])):
        whole = {figure.name: figure.value for figure in fed(name, chosen).compute(draws=0, seed=0)}
        assert by_row.keys() <= whole.keys()
        for figure, values in by_row.items():
            assert values[place] == pytest.approx(whole[figure], abs=1e-9), figure


def made(name: str, row: int, random: np.random.Generator) -> tuple[Prediction, dict[str, object]]:
    first, second = ("red", "blue", "green")[random.integers(3)], ("red", "blue", "green")[random.integers(3)]
    said = first if random.random() < 0.6 else second
    if name == "regression":
        return Prediction(str(row), {"x": Number(float(random.normal()))}), {"x": float(random.normal())}
    if name == "classification":
        return Prediction(str(row), {"x": Category(said, {said: 1.0})}), {"x": first}
    return Prediction(str(row), {"x": Text(f"a {said} star on the ground", -1.0)}), {"x": f"a {first} star on dark ground", "colour": first}


def fed(name: str, rows: list[tuple[Prediction, dict[str, object]]]) -> Any:
    options = {"columns": ["colour"]} if name == "mentions" else {}
    need = AnswerNeed({"classification": "category", "regression": "number"}.get(name, "text"))
    metric = catalog.find("metric", name, options).build("x", need)
    for prediction, truth in rows:
        metric.update(prediction, truth)
    return metric
