"""What the plan says of `train.compile`: only where the recipe asks, whether it can be, and after how many steps it pays."""

from __future__ import annotations

import sysconfig
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from multitune.core.errors import RecipeError
from multitune.core.plan import Plan, Value
from multitune.models import anatomy
from multitune.tuning.plan import compiling
from multitune.tuning.plan.compiling import (
    CODE,
    FIELD,
    Cost,
    asked,
    at_once,
    compile_value,
    lacking,
    remember,
    remembered,
    told,
    told_before,
)
from tests.tuning.small import small
from tests.tuning.test_plan import outline, recipe

CHEAP = Cost(eager=0.5, compiled=0.4, compiling=3.9)


@pytest.fixture(autouse=True)
def _this_machine_compiles(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With or without a compiler; a test says what it takes away."""
    (tmp_path / "Python.h").touch()
    compiler = tmp_path / "cxx"
    compiler.touch(mode=0o755)
    monkeypatch.setenv("CXX", f"{compiler} -O2")
    monkeypatch.setattr(sysconfig, "get_path", lambda _: str(tmp_path))
    monkeypatch.setenv("MULTITUNE_CACHE", str(tmp_path / "cache"))


def plan(**train: Any) -> Plan:
    """Of a hundred steps of two micro-batches."""
    wanted: dict[str, Any] = {"steps": 100, "batch_size": 32, "micro_batch": 16, "compile": True, **train}
    return Plan("x", {}, outline(**wanted).values)


def test_a_plan_states_it_only_where_the_recipe_does() -> None:
    assert FIELD not in outline().values
    assert not asked(plan(compile=False))
    stated = plan().values[FIELD]
    assert (stated.value, stated.origin, stated.binds) == (True, "recipe", "bits")
    assert recipe(compile=True).request_hash() != recipe().request_hash()


def test_a_machine_without_compiler_or_headers_is_refused_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "Python.h").unlink()
    with pytest.raises(
        RecipeError, match=r"train\.compile: .*Python\.h is not there\. Install python3-dev, or: Leave train\.compile out\."
    ):
        outline(compile=True)
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(RecipeError, match="no-such-compiler is not there"):
        outline(compile=True)
    outline(compile=False)


def test_other_systems_and_devices_are_refused_too() -> None:
    assert lacking("cpu") == ("", "")
    assert "mps" in lacking("mps")[0]
    assert "Windows" in lacking("cpu", system="win32")[0]


def test_a_model_without_blocks_has_nothing_to_compile() -> None:
    whole = anatomy.find(small("classify"))
    bare = replace(whole, towers=tuple(replace(tower, blocks=()) for tower in whole.towers))
    with pytest.raises(RecipeError, match="no tower of this model has blocks"):
        compile_value(recipe(compile=True), bare, device="cpu")


def test_it_pays_when_what_each_step_saves_adds_up_to_what_compiling_takes() -> None:
    assert CHEAP.pays_after(2) == pytest.approx(19.5)
    assert replace(CHEAP, compiled=0.5).pays_after(2) == float("inf")
    before = plan()
    after = told(before, CHEAP)
    said = "both passes of a step take 0.8 s in place of 1 s, compiling takes 4 s: it pays after 20 steps of 100"
    assert after.values[FIELD].note == said
    assert CODE not in {finding.code for finding in after.findings}
    assert after.hash() == before.hash(), "what was measured binds nothing"


def test_a_run_that_measures_compiles_twice_and_counts_both() -> None:
    note = told(plan(), replace(CHEAP, compiling=3.95), measures=True, aside="; so it was").values[FIELD].note
    assert note.endswith("compiling takes 4 s and 4 s more to measure it: it pays after 40 steps of 100; so it was")


@pytest.mark.parametrize(
    ("cost", "why"), [(replace(CHEAP, compiled=0.6), "it never pays"), (replace(CHEAP, compiling=39.0), "it pays after 19")]
)
def test_a_run_that_is_too_short_for_it_is_told_once(cost: Cost, why: str) -> None:
    found = [finding for finding in told(told(plan(), cost), cost).findings if finding.code == CODE]
    assert len(found) == 1
    assert why in found[0].message
    assert "the run has 100" in found[0].message


def test_what_was_measured_is_remembered_for_runs_that_compute_the_same() -> None:
    assert remembered(plan()) is None
    assert told_before(plan()) == plan()
    remember(plan(), CHEAP)
    assert told_before(plan(steps=200, lr=1e-3)).values[FIELD].note.endswith("it pays after 20 steps of 200")
    assert remembered(plan(micro_batch=8)) is None
    assert remembered(plan(threads=7)) is None
    changed = plan()
    changed = replace(changed, values={**changed.values, "model.towers.words.pretrained": Value("another", "recipe")})
    assert remembered(changed) is None
    place = next((Path(str(compiling.store.cache_root())) / compiling.FOLDER).iterdir())
    place.write_text("{}", "utf-8")
    assert remembered(plan()) is None


def changed(before: Plan, **values: Any) -> Plan:
    """The plan with other values; of a tower's name and what is kept of it, say."""
    named = {name.replace("__", "."): Value(value, "derived") for name, value in values.items()}
    return replace(before, values={**before.values, **named})


def test_what_was_measured_with_all_blocks_running_is_not_that_of_a_run_that_keeps_features() -> None:
    remember(changed(plan(), features__words__kept="words.encoder.layer.0"), CHEAP)
    assert remembered(plan()) is None
    assert remembered(changed(plan(), features__words__kept="words.encoder.layer.1")) is None
    assert remembered(changed(plan(), features__words__kept="words.encoder.layer.0")) == CHEAP


def test_a_run_that_keeps_nothing_is_one_of_which_that_is_not_known_yet() -> None:
    remember(changed(plan(), features__words__kept="none"), CHEAP)
    assert remembered(plan()) == CHEAP


def test_what_was_measured_on_one_micro_batch_is_not_that_of_a_loss_over_pairs_which_takes_two() -> None:
    pairs = changed(plan(), loss__over="pairs")
    assert (at_once(plan()), at_once(pairs), at_once(changed(pairs, train__micro_batches=1))) == (1, 2, 1)
    remember(pairs, CHEAP)
    assert remembered(pairs) is None
    remember(pairs, replace(CHEAP, at_once=2))
    assert remembered(pairs) == replace(CHEAP, at_once=2)
