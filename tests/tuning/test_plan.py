"""What tuning states in the plan is what the run will do."""

from __future__ import annotations

from typing import Any

import pytest

from multitune.core.errors import ModelError, RecipeError
from multitune.core.plan import Plan
from multitune.core.protocols import TaskPreset
from multitune.core.recipe import Recipe, make_recipe
from multitune.models import anatomy
from multitune.tuning.plan import TuningOutline, planned_table, state
from tests.tuning.small import Shape, scope_of, small


def recipe(shape: Shape = "classify", **changes: Any) -> Recipe:
    train = {key: changes.pop(key) for key in list(changes) if key not in ("strategy", "loss")}
    data = {"source": "digits", "parts": {"words": "text", "kind": "category"}, "answers": ["kind"]}
    return make_recipe({"name": "x", "task": "classification", "data": data, "train": train, **changes})


def outline(shape: Shape = "classify", *, rows: int = 100, random: tuple[str, ...] = (), **changes: Any) -> TuningOutline:
    family = small(shape)
    preset = TaskPreset("", "contrastive" if shape == "embed" else "cross_entropy", {})
    return state(recipe(**changes), rows=rows, needs=family.needs, anatomy=anatomy.find(family), preset=preset, random=random)


def value(told: TuningOutline, name: str) -> Any:
    return told.values[name].value


def codes(told: TuningOutline) -> list[str]:
    return [finding.code for finding in told.findings]


def test_steps_follow_from_rows_epochs_and_batch() -> None:
    told = outline(rows=100, epochs=3, batch_size=32, micro_batch=8)
    names = ("steps_per_epoch", "steps", "micro_batch", "micro_batches", "warmup_steps", "evaluate_every", "checkpoint_every")
    assert [value(told, f"train.{name}") for name in names] == [4, 12, 8, 4, 1, 4, 4]


def test_long_runs_are_evaluated_at_most_ten_times_by_default() -> None:
    assert value(outline(rows=100, epochs=25, batch_size=50), "train.evaluate_every") == 6


@pytest.mark.parametrize("strategy", ["full", {"name": "partial", "blocks": 1}, {"name": "lora", "rank": 3}])
def test_what_the_plan_counts_is_what_the_scope_moves(strategy: Any) -> None:
    told = outline(strategy=strategy)
    planned = planned_table(Plan("x", {}, told.values))
    assert value(told, "moves.parameters") == scope_of(small("classify"), tuple(planned)).parameters_moved


def test_the_table_says_what_moves_in_each_tower() -> None:
    told = outline(strategy=[{"pattern": "head", "rate": 5}, {"pattern": "words.encoder.layer.1", "start": "50%"}], lr=1e-3, steps=10)
    rows = {row[0]: row[4:] for row in told.tables["moves"]}
    assert rows["words"] == ("0.001", "5 to 10")
    assert rows["head"] == ("0.005", "all")
    assert rows["scale"] == ("frozen", "none")


def test_each_value_says_where_it_comes_from_and_what_it_binds() -> None:
    told = outline(lr=1e-3)
    assert told.values["train.lr"].origin == "recipe"
    assert told.values["train.eps"].origin == "default"
    assert told.values["train.steps"].origin == "derived"
    assert (told.values["train.threads"].origin, told.values["train.threads"].binds) == ("machine", "bits")
    assert (told.values["train.workers"].origin, told.values["train.workers"].binds) == ("machine", "speed")


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"batch_size": 32, "micro_batch": 8, "random": ("words",)}, "split-binds"),
        ({"shape": "embed", "batch_size": 32}, "few-negatives"),
        ({"batch_size": 200}, "batch-over-rows"),
        ({"steps": 10, "strategy": [{"pattern": "*"}, {"pattern": "head", "start": 10}]}, "never-moves"),
    ],
)
def test_what_is_doubtful_is_a_finding(changes: dict[str, Any], code: str) -> None:
    assert code in codes(outline(**changes))


def test_nothing_is_doubtful_about_an_ordinary_run() -> None:
    assert codes(outline(random=("words",))) == []


def test_moving_batch_statistics_refuse_micro_batches() -> None:
    with pytest.raises(RecipeError, match="batch_norm"):
        outline(batch_norm="moving", batch_size=32, micro_batch=8)


def test_a_table_under_which_nothing_moves_is_refused() -> None:
    with pytest.raises(ModelError, match="nothing moves"):
        outline(strategy=[{"pattern": "head", "rate": 0}])


def test_a_loss_that_does_not_fit_the_answers_is_refused() -> None:
    with pytest.raises(RecipeError, match="regression does not fit"):
        outline(loss="regression")


def test_fp16_on_a_cpu_is_refused() -> None:
    with pytest.raises(RecipeError, match="fp16 needs a GPU"):
        outline(precision="fp16", device="cpu")
