"""The loss on rows that are not trained on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from multitune.core import catalog
from multitune.core.errors import RecipeError
from multitune.core.protocols import Loss
from multitune.core.recipe import make_recipe
from multitune.tuning.plan.doubts import refuse_watched
from multitune.tuning.step import held_out
from tests.tuning.small import Shape, cut, rows, small
from tests.tuning.test_gradients import loss_for


@pytest.mark.parametrize("shape", ["classify", "speak"])
def test_it_is_the_loss_of_all_rows_whatever_the_batches(shape: Shape) -> None:
    family = small(shape, dropout=0.5)
    batch = rows(family, 8)
    name = loss_for(family.needs).terms[0]
    family.eval()
    loss = loss_for(family.needs)
    whole = float(loss.sums(family(batch), batch)[name].detach()) / loss.weights(batch)[name]
    for sizes in ((8,), (3, 5), (1,) * 8):
        assert held_out(family, loss, [piece for _, piece in cut(batch, sizes)])["loss"] == pytest.approx(whole, rel=1e-5)
    assert all(parameter.grad is None for parameter in family.parameters())


def test_a_loss_that_rests_on_a_teacher_is_not_waited_for() -> None:
    data = {"source": "digits", "parts": {"image": "image", "label": "category"}, "answers": ["label"]}
    train = {"early_stop": {"metric": "valid/loss"}}
    recipe = make_recipe({"name": "x", "task": "classification", "data": data, "train": train})
    needs = small("classify").needs
    refuse_watched(recipe, loss_for(needs))
    with pytest.raises(RecipeError, match=r"early_stop.metric: the loss rests on a teacher"):
        refuse_watched(recipe, catalog.find("loss", "distillation", {"teacher": "runs/other"}).build(needs))


def test_several_terms_are_told_with_their_shares() -> None:
    family = small("classify")
    batch = rows(family, 8)

    class Twice:
        over: Any = "rows"

        def __init__(self) -> None:
            self.terms: tuple[str, ...] = ("one", "other")
            self.shares: Mapping[str, float] = {"other": 3.0}

        def weights(self, batch: Any) -> Any:
            return {"one": 8.0, "other": 8.0}

        def sums(self, outputs: Any, batch: Any) -> Any:
            total = outputs.logits["kind"].sum()
            return {"one": 0.0 * total + 8.0, "other": 0.0 * total + 16.0}

    twice: Loss = Twice()
    assert held_out(family, twice, [batch]) == pytest.approx({"loss": 7.0, "loss/one": 1.0, "loss/other": 2.0})


@pytest.mark.parametrize("metric", ["valid/loss", "valid/loss/label"])
def test_a_smaller_loss_is_a_better_one(metric: str) -> None:
    control = catalog.find("control", "early_stop", {"metric": metric}).build()
    state, decision = control.decide(control.start(), step=1, figures={metric: 2.0})
    assert decision.best
    assert control.decide(state, step=2, figures={metric: 1.0})[1].best
    assert not control.decide(state, step=2, figures={metric: 3.0})[1].best
