"""The module that both sides train: that of the recipe's plan, made from the recipe's seed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from multitune.core.ledger import Ledger
from multitune.core.protocols import Batch
from multitune.core.recipe import make_recipe
from multitune.data.loader import batches
from multitune.models.load import Weights
from multitune.models.plan import build_family
from multitune.tuning.gradients import Gradients
from multitune.tuning.plan import loss_of
from multitune.verbs.plan import Planned, make_plan


@dataclass(frozen=True)
class Start:
    """A family before any step, and the plan that it is of."""

    planned: Planned
    family: Any

    @classmethod
    def of(cls, asked: Mapping[str, Any]) -> Start:
        """What a recipe asks for."""
        planned = make_plan(make_recipe(dict(asked)), Ledger())
        return cls(planned, build_family(planned.recipe, planned.data.needs, Weights("pretrained", seed=planned.recipe.seed)))

    @property
    def parameters(self) -> int:
        """How many numbers there are."""
        return sum(parameter.numel() for parameter in self.family.parameters())

    def batch(self, size: int) -> Batch:
        """The first rows of the train split, prepared; all of them where size is 0."""
        examples = self.planned.data.examples["train"]
        return next(batches(examples, self.family.preparer, size=size or len(examples)))[1]

    def first_step(self, size: int) -> dict[str, float]:
        """The loss of the first rows and the norm of its gradient, by our own step; nothing moves."""
        loss = loss_of(self.planned.recipe, self.planned.preset, self.planned.data.needs)
        terms = Gradients(self.family, loss, seed=0).work(0, [(0, self.batch(size))]).backward(0)
        return {"first_loss": sum(float(value) for value in terms.values()), "first_norm": norm_of(self.family)}


def norm_of(module: torch.nn.Module) -> float:
    """The norm of the gradient, which is taken away."""
    norm = float(torch.nn.utils.get_total_norm([one.grad for one in module.parameters() if one.grad is not None]))
    module.zero_grad(set_to_none=True)
    return norm
