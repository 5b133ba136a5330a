"""Rates are a pure function of the step; early stopping a pure function of figures."""

from __future__ import annotations

from typing import Any

import pytest

from multitune.core.errors import RecipeError
from multitune.tuning.controls import early_stop
from multitune.tuning.schedule import Schedule


def test_the_rate_rises_stays_and_falls() -> None:
    curve = Schedule("linear", total=10, warmup=2, decay=4)
    assert [round(curve.factor(step), 3) for step in range(10)] == [0.5, 1, 1, 1, 1, 1, 1, 0.75, 0.5, 0.25]


def test_cosine_falls_from_the_end_of_the_warmup_over_half_a_wave() -> None:
    curve = Schedule("cosine", total=10, warmup=2, decay=10)
    assert curve.factor(6) == pytest.approx(0.5)
    assert curve.factor(2) == 1.0
    assert 0 < curve.factor(9) < 0.05


def test_constant_stays_after_the_warmup() -> None:
    curve = Schedule("constant", total=10, warmup=2, decay=10)
    assert [curve.factor(step) for step in (0, 1, 9)] == [0.5, 1.0, 1.0]


def test_a_tensor_that_starts_later_has_its_own_warmup_on_the_runs_curve() -> None:
    curve = Schedule("linear", total=10, warmup=2, decay=10)
    assert curve.factor(6, start=6) == pytest.approx(0.5 * curve.factor(6))
    assert curve.factor(7, start=6) == curve.factor(7)


def decided(figures: list[float], **options: Any) -> list[tuple[bool, bool]]:
    control = early_stop.build(early_stop.Options.model_validate({"metric": "valid/accuracy", "patience": 2} | options))
    state, told = control.start(), []
    for step, value in enumerate(figures, start=1):
        state, decision = control.decide(state, step=step, figures={options.get("metric", "valid/accuracy"): value})
        told.append((decision.best, decision.stop))
    return told


def test_it_stops_when_nothing_got_better_for_as_long_as_it_is_patient() -> None:
    assert decided([0.5, 0.6, 0.6, 0.5]) == [(True, False), (True, False), (False, False), (False, True)]


@pytest.mark.parametrize("metric", ["valid/loss", "valid/price/mae", "valid/image_to_text/median_rank"])
def test_of_errors_and_ranks_less_is_better(metric: str) -> None:
    assert decided([0.5, 0.4], metric=metric) == [(True, False), (True, False)]


def test_a_change_below_min_delta_is_no_better() -> None:
    assert decided([0.5, 0.505], min_delta=0.01) == [(True, False), (False, False)]


def test_a_figure_that_is_not_a_number_is_never_the_best() -> None:
    assert decided([float("nan"), 0.1, float("nan")]) == [(False, False), (True, False), (False, False)]


def test_a_figure_that_is_not_measured_is_refused_with_the_nearest() -> None:
    control = early_stop.build(early_stop.Options(metric="valid/acuracy"))
    with pytest.raises(RecipeError, match='Did you mean "valid/accuracy"'):
        control.decide(control.start(), step=1, figures={"valid/accuracy": 0.5})
