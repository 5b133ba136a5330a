"""The sigmoid loss over pairs: by hand, by gradient caching, and only with a model that has what it reads."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from multitune.core import catalog
from multitune.core.errors import RecipeError
from multitune.core.protocols import Batch, Loss, Needs, Outputs, PartNeed
from multitune.models import anatomy
from multitune.tuning.gradients import Gradients
from multitune.tuning.plan.doubts import refuse_scalars
from tests.tuning.small import Small, cut, rows, scope_of, small

PARTS = Needs({name: PartNeed("text") for name in ("left", "right", "third")}, {})


class Biased(Small):
    """The model that embeds, with a learned bias."""

    def __init__(self) -> None:
        super().__init__("embed")
        self.bias = nn.Parameter(torch.tensor(-2.0))

    def forward(self, batch: Batch) -> Outputs:
        """Embeddings, scale and bias."""
        made = super().forward(batch)
        return replace(made, scalars={**made.scalars, "bias": self.bias})


def biased() -> Biased:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Biased()


def build(loss: str, needs: Needs, **options: object) -> Loss:
    made: Loss = catalog.find("loss", loss, options).build(needs)
    return made


def by_hand(outputs: Outputs, batch: Batch) -> torch.Tensor:
    """Over all pairs of rows that have both parts, one after the other."""
    kept = [n for n, here in enumerate((batch.presence["left"] & batch.presence["right"]).tolist()) if here]
    total = torch.zeros(())
    for i in kept:
        for j in kept:
            if i != j and (batch.ids[i] == batch.ids[j] or any(held[i] == held[j] for held in batch.contents.values())):
                continue
            score = outputs.scalars["scale"] * outputs.embeddings["left"][i] @ outputs.embeddings["right"][j] + outputs.scalars["bias"]
            total = total + torch.log1p(torch.exp(-score if i == j else score))
    return total / len(kept)


def gradient(family: Small, micro: list[tuple[int, Batch]]) -> torch.Tensor:
    scope = scope_of(family)
    family.zero_grad(set_to_none=True)
    work = Gradients(family, build("sigmoid", family.needs), 0).work(3, micro)
    for position in work.order():
        work.backward(position)
    return torch.cat([torch.zeros(e.parameter.numel()) if e.parameter.grad is None else e.parameter.grad.flatten() for e in scope.entries])


@pytest.mark.parametrize("twice", [False, True], ids=["all different", "one row twice"])
def test_each_pair_is_judged_alone(twice: bool) -> None:
    family, batch = biased(), rows(small("embed"), 6)
    given = replace(batch, ids=(*batch.ids[:5], batch.ids[0])) if twice else batch
    outputs = family(given)
    loss = build("sigmoid", family.needs)
    found = loss.sums(outputs, given)["left_right"] / loss.weights(given)["left_right"]
    torch.testing.assert_close(found, by_hand(outputs, given))


@pytest.mark.parametrize("sizes", [(4, 4), (2, 2, 2, 2), (1,) * 8], ids=str)
def test_by_gradient_caching_it_has_the_gradient_of_one_plain_backward(sizes: tuple[int, ...]) -> None:
    family, batch = biased(), rows(small("embed"), 8)
    batch = replace(batch, contents={"left": torch.arange(8) // 2, "right": torch.arange(8)})  # each two rows have one left part
    cached = gradient(family, cut(batch, sizes))
    family.zero_grad(set_to_none=True)
    by_hand(family(batch), batch).backward()
    direct = torch.cat([torch.zeros(p.numel()) if p.grad is None else p.grad.flatten() for p in dict(family.named_parameters()).values()])
    assert family.bias.grad is not None
    assert float(family.bias.grad) != 0
    assert (cached - direct).norm() <= 1e-6 * direct.norm()


def test_a_model_without_a_bias_is_refused_before_anything_is_spent() -> None:
    plugin = catalog.find("loss", "sigmoid")
    refuse_scalars(plugin, anatomy.find(biased()))
    with pytest.raises(RecipeError, match=r"sigmoid needs a learned bias.*model\.bias=-10"):
        refuse_scalars(plugin, anatomy.find(small("embed")))


@pytest.mark.parametrize("loss", ["contrastive", "sigmoid"])
def test_a_part_weighs_all_its_pairs(loss: str) -> None:
    shares = build(loss, PARTS, parts={"third": 0.5, "left": 2.0}, shares={"left_right": 3.0}).shares
    assert shares == {"left_right": 6.0, "left_third": 1.0, "right_third": 0.5}
    with pytest.raises(RecipeError, match='Did you mean "third"'):
        build(loss, PARTS, parts={"thrid": 1.0})
