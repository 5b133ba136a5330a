"""Binary cross-entropy of each label by itself, for answers of any number of labels.

One term for each answer: the mean over rows and labels. A row without the answer does not count; the weight of a term is the number of rows
that do. With `weights` a row's mean over the labels is weighted; `positive` multiplies what a label that is there costs when it is missed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from pydantic import Field
from torch.nn import functional

from multitune.core import catalog
from multitune.core.protocols import Batch, Needs, Outputs, Tensor
from multitune.tuning.losses._answers import TEXT, ClassWeights, check_answers, check_shares, class_weights


class Options(catalog.Options):
    """Weights of labels, and the share of each answer's term in the sum."""

    weights: ClassWeights | None = Field(default=None, description=TEXT)
    positive: float = Field(default=1.0, gt=0, description="what multiplies the part of labels that are there")
    label_smoothing: float = Field(default=0.0, ge=0, lt=1, description="1 becomes 1 - s/2, 0 becomes s/2")
    shares: dict[str, float] = Field(default_factory=dict, description="answer: what multiplies its term; 1 by default")


def build(options: Options, needs: Needs) -> MultiLabel:
    """The loss for these answers.

    Raises: RecipeError for an answer that is no set of labels, a share for no answer, or a weight for no label.
    """
    check_answers("multi_label", needs, ("labels",))
    check_shares(options.shares, list(needs.answers), what="answer")
    return MultiLabel(tuple(needs.answers), options, class_weights(options.weights, needs))


class MultiLabel:
    """The sum over rows that have the answer, of their mean over the labels, and the number of those rows."""

    over: Literal["rows", "pairs"] = "rows"

    def __init__(self, answers: tuple[str, ...], options: Options, weights: Mapping[str, list[float]]) -> None:
        self.terms = answers
        self.shares: Mapping[str, float] = options.shares
        self._options = options
        self._weights = {name: torch.tensor(values) / sum(values) for name, values in weights.items()}

    def weights(self, batch: Batch) -> Mapping[str, float]:
        """How many rows have the answer."""
        return {name: float(batch.presence[name].sum()) for name in self.terms}

    def sums(self, outputs: Outputs, batch: Batch) -> Mapping[str, Tensor]:
        """The summed loss of the rows that have the answer, in float32."""
        result: dict[str, Tensor] = {}
        for name in self.terms:
            there = batch.presence[name]
            logits, truth = outputs.logits[name][there].float(), batch.answers[name][there].float()
            smooth = truth * (1 - self._options.label_smoothing) + 0.5 * self._options.label_smoothing
            positive = torch.tensor(self._options.positive, device=logits.device)
            cost = functional.binary_cross_entropy_with_logits(logits, smooth, pos_weight=positive, reduction="none")
            share = self._weights[name].to(logits.device) if name in self._weights else 1 / max(1, logits.shape[1])
            result[name] = (cost * share).sum()
        return result
