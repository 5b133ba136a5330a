"""What a loss learns itself: it moves by the plan, is kept and comes back, and is the same however a step is cut."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn

from multitune.core import catalog
from multitune.core.errors import ModelError
from multitune.core.protocols import AnswerNeed, Batch, Needs, Outputs
from multitune.core.recipe import TuningRow
from multitune.models import anatomy
from multitune.tuning import events
from multitune.tuning import scope as scopes
from multitune.tuning.gradients import Gradients
from multitune.tuning.losses import contrastive
from tests.tuning.fitting import fit
from tests.tuning.small import EVERYTHING, Small, cut, rows, small

OWN, SHARE = "loss.uncertainty.kind", "train/learned_share"


def several(family: Small) -> Any:
    return catalog.find("loss", "several", {"uncertainty": True}).build(family.needs)


def scope_with(family: Small, loss: Any, table: tuple[TuningRow, ...] = EVERYTHING) -> scopes.Scope:
    scope = scopes.apply(table, anatomy.find(family), family, total_steps=4, seed=0, loss=loss)
    scope.enter(0)
    return scope


def slope(family: Small, loss: Any, micro: list[tuple[int, Batch]]) -> dict[str, Tensor]:
    scope = scope_with(family, loss)
    for entry in scope.entries:
        entry.parameter.grad = None
    work = Gradients(family, loss, 0).work(0, micro)
    for position in work.order():
        work.backward(position)
    return {entry.name: entry.parameter.grad for entry in scope.entries if entry.parameter.grad is not None}


def test_what_a_loss_learns_stands_beside_the_model_and_neither_decays_nor_hides() -> None:
    family = small("classify")
    loss = several(family)
    scope = scope_with(family, loss)
    entry = next(one for one in scope.entries if one.name == OWN)
    assert (entry.tower, entry.decays) == ("loss", False)
    assert scope.parameters_moved == sum(p.numel() for p in family.parameters()) + 1
    before = scope.hashes()
    entry.parameter.data.fill_(1.0)
    assert [name for name, value in scope.hashes().items() if before[name] != value] == [OWN]


def test_a_row_of_the_table_may_freeze_it() -> None:
    family = small("classify")
    scope = scope_with(family, several(family), (*EVERYTHING, TuningRow(pattern="loss", rate=0.0)))
    assert OWN not in {entry.name for entry in scope.entries}


def test_a_part_of_the_same_name_is_refused() -> None:
    family = small("classify")
    names = anatomy.find(family)
    clash = scopes.beside(names, several(family))
    with pytest.raises(ModelError, match='a part is called "loss"'):
        scopes.beside(clash, several(family))


@pytest.mark.parametrize("sizes", [(4, 4), (1,) * 8], ids=str)
def test_its_gradient_is_that_of_the_whole(sizes: tuple[int, ...]) -> None:
    family = small("classify")
    batch, loss = rows(family, 8), several(family)
    whole, cut_up = (slope(family, loss, cut(batch, each)) for each in ((8,), sizes))
    assert whole[OWN].abs() > 1e-3
    assert all((cut_up[name] - value).norm() <= 1e-5 * value.norm() + 1e-9 for name, value in whole.items())


class Warm(nn.Module):
    """A contrastive loss that learns a factor of its own."""

    over: Literal["rows", "pairs"] = "pairs"

    def __init__(self, needs: Needs) -> None:
        super().__init__()
        self.inner = contrastive.build(contrastive.Options(), needs)
        self.terms, self.shares = self.inner.terms, self.inner.shares
        self.factor = nn.Parameter(torch.tensor(0.5))

    def weights(self, batch: Batch) -> Any:
        return self.inner.weights(batch)

    def sums(self, outputs: Outputs, batch: Batch) -> dict[str, Tensor]:
        return {name: self.factor * value for name, value in self.inner.sums(outputs, batch).items()}


def test_what_a_loss_learns_does_not_decay_whatever_its_shape() -> None:
    family = small("embed")
    loss = Warm(family.needs)
    loss.factor = nn.Parameter(torch.full((2, 2), 0.5))
    decays = {entry.name: entry.decays for entry in scope_with(family, loss).entries}
    assert not decays["loss.factor"]
    assert decays["head.out.weight"]


def test_a_pair_loss_may_learn_too() -> None:
    family = small("embed")
    loss, batch = Warm(family.needs), rows(family, 8)
    cached = slope(family, loss, cut(batch, (3, 3, 2)))["loss.factor"]
    plain = loss.inner.sums(family(batch), batch)["left_right"] / loss.weights(batch)["left_right"]
    torch.testing.assert_close(cached, plain.detach())


def test_two_answers_in_one_table_have_a_share_each() -> None:
    needs = Needs({}, {"kind": AnswerNeed("category", labels=("a", "b")), "size": AnswerNeed("number")})
    loss = catalog.find("loss", "several", {"uncertainty": True}).build(needs)
    assert sorted(scopes.own_parameters(loss)) == ["loss.uncertainty.kind", "loss.uncertainty.size"]


def test_what_was_learned_is_told_step_by_step_and_among_the_figures(tmp_path: Path) -> None:
    family = small("classify")
    loss = several(family)
    outcome = fit(family, tmp_path, loss=loss, statistics_every=4)
    told = {event["step"]: event["value"] for event in events.read(tmp_path / "events.jsonl") if event["name"] == f"{SHARE}/kind"}
    assert list(told) == [1, 2, 3, 4, 8]
    assert outcome.figures[f"{SHARE}/kind"] == told[8] == math.exp(-dict(loss.named_parameters())["uncertainty.kind"].item()) != 1


def test_fixed_shares_are_not_told_as_learned(tmp_path: Path) -> None:
    family = small("classify")
    fit(family, tmp_path, loss=catalog.find("loss", "several").build(family.needs), steps=1)
    assert not [event for event in events.read(tmp_path / "events.jsonl") if event["name"].startswith(SHARE)]
