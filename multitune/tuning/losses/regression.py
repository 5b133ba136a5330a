"""Squared or Huber error of each number answer, in units of the train split's standard deviation.

One term for each answer; a row without the answer does not count; the weight of a term is the number of rows that do.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field
from torch.nn import functional

from multitune.core import catalog
from multitune.core.protocols import Batch, Needs, Outputs, Tensor
from multitune.tuning.losses._answers import check_answers, check_shares


class Options(catalog.Options):
    """The shape of the error, and the share of each answer's term in the sum."""

    kind: Literal["squared", "huber"] = "squared"
    delta: float = Field(default=1.0, gt=0, description="huber: where squared becomes absolute, in standard deviations")
    shares: dict[str, float] = Field(default_factory=dict, description="answer: what multiplies its term; 1 by default")


def build(options: Options, needs: Needs) -> Regression:
    """The loss for these answers.

    Raises: RecipeError for an answer that is no number, or a share for no answer.
    """
    check_answers("regression", needs, ("number",))
    check_shares(options.shares, list(needs.answers), what="answer")
    return Regression(tuple(needs.answers), options)


class Regression:
    """The summed error over rows with the answer, and their number, for each answer."""

    over: Literal["rows", "pairs"] = "rows"

    def __init__(self, answers: tuple[str, ...], options: Options) -> None:
        self.terms = answers
        self.shares: Mapping[str, float] = options.shares
        self._options = options

    def weights(self, batch: Batch) -> Mapping[str, float]:
        """How many rows have the answer."""
        return {name: float(batch.presence[name].sum()) for name in self.terms}

    def sums(self, outputs: Outputs, batch: Batch) -> Mapping[str, Tensor]:
        """The summed error of the rows that have the answer, in float32."""
        result: dict[str, Tensor] = {}
        for name in self.terms:
            present = batch.presence[name]
            guess, truth = outputs.logits[name][present].float(), batch.answers[name][present].float()
            if self._options.kind == "huber":
                result[name] = functional.huber_loss(guess, truth, reduction="sum", delta=self._options.delta)
            else:
                result[name] = functional.mse_loss(guess, truth, reduction="sum")
        return result
