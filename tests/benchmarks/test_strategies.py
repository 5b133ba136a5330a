"""The benchmark of strategies compares like with like."""

from __future__ import annotations

import pytest

from benchmarks.strategies import interval, leads, summary
from benchmarks.strategies.arms import ARMS, QUICK, SEED_FOR_RATES, SEEDS, SETTINGS, Setting, recipe
from multitune.core.recipe import make_recipe


@pytest.mark.parametrize("setting", SETTINGS.values(), ids=SETTINGS)
def test_every_arm_of_a_setting_reads_the_same_rows_for_the_same_steps(setting: Setting) -> None:
    recipes = [make_recipe(recipe(setting, arm, seed=3, rate=arm.rates[0])) for arm in ARMS.values()]
    assert len({one.data.model_dump_json() for one in recipes}) == 1
    assert {(one.train.steps, one.train.batch_size, one.train.threads, one.seed) for one in recipes} == {(setting.steps, 32, 1, 3)}


def test_the_seed_that_chose_the_rates_is_not_measured() -> None:
    assert SEED_FOR_RATES not in SEEDS


def test_the_quick_form_has_arms_of_the_whole_one() -> None:
    assert set(QUICK) <= set(ARMS)


def test_an_arm_close_to_scratch_is_told() -> None:
    found = {"scratch": [{"accuracy": 0.5}], "frozen": [{"accuracy": 0.4}], "full": [{"accuracy": 0.56}]}
    assert leads(found)
    assert not leads({**found, "lora": [{"accuracy": 0.54}]})


def test_the_interval_of_equal_seeds_is_a_point_and_memory_is_that_of_the_first() -> None:
    assert interval([0.5, 0.5, 0.5]) == (0.5, 0.5)
    rows = [{"accuracy": 0.5, "seconds": 1.0, "moved": 2.0, "memory": 9.0}, {"accuracy": 0.7, "seconds": 3.0, "moved": 2.0, "memory": 0.0}]
    figures = summary({"full": rows})
    assert (figures["full/accuracy"], figures["full/seconds"], figures["full/memory"]) == (pytest.approx(0.6), 1.0, 9.0)
    assert figures["full/low"] < 0.6 < figures["full/high"]
