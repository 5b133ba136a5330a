"""Focal loss: cross-entropy in which what is already answered well counts less, by (1 - p) to the power of gamma.

For category answers p is the probability of the true class; for labels each label is judged by itself, as in the paper, and a row's loss is
the mean over them. One term for each answer; a row without it does not count. `weights` (the paper's alpha) multiply what a class costs and
are not divided out again: the weight of a term is the number of rows.

Source: Lin et al. 2017, arXiv:1708.02002.
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
    """How strongly what is answered well is left aside, weights of classes, and the share of each answer's term."""

    gamma: float = Field(default=2.0, ge=0, description="0: plain cross-entropy")
    weights: ClassWeights | None = Field(default=None, description=TEXT)
    shares: dict[str, float] = Field(default_factory=dict, description="answer: what multiplies its term; 1 by default")


def build(options: Options, needs: Needs) -> Focal:
    """The loss for these answers.

    Raises: RecipeError for an answer that is neither a category nor labels, a share for no answer, or a weight for no class.
    """
    check_answers("focal", needs, ("category", "labels"))
    check_shares(options.shares, list(needs.answers), what="answer")
    several = frozenset(name for name, need in needs.answers.items() if need.modality == "labels")
    return Focal(tuple(needs.answers), several, options, class_weights(options.weights, needs))


class Focal:
    """The sum over rows that have the answer, and their number, for each answer. several: those of any number of labels."""

    over: Literal["rows", "pairs"] = "rows"

    def __init__(self, answers: tuple[str, ...], several: frozenset[str], options: Options, weights: Mapping[str, list[float]]) -> None:
        self.terms = answers
        self.shares: Mapping[str, float] = options.shares
        self._several, self._gamma = several, options.gamma
        self._weights = {name: torch.tensor(values) for name, values in weights.items()}

    def weights(self, batch: Batch) -> Mapping[str, float]:
        """How many rows have the answer."""
        return {name: float(batch.presence[name].sum()) for name in self.terms}

    def sums(self, outputs: Outputs, batch: Batch) -> Mapping[str, Tensor]:
        """The summed loss of the rows that have the answer, in float32."""
        result: dict[str, Tensor] = {}
        for name in self.terms:
            there = batch.presence[name]
            logits, truth = outputs.logits[name][there].float(), batch.answers[name][there]
            weights = self._weights[name].to(logits.device) if name in self._weights else torch.ones(logits.shape[1], device=logits.device)
            result[name] = self._labels(logits, truth.float(), weights) if name in self._several else self._classes(logits, truth, weights)
        return result

    def _classes(self, logits: Tensor, truth: Tensor, weights: Tensor) -> Tensor:
        cost = functional.cross_entropy(logits, truth, reduction="none")
        return (weights[truth] * self._left(cost) * cost).sum()

    def _labels(self, logits: Tensor, truth: Tensor, weights: Tensor) -> Tensor:
        cost = functional.binary_cross_entropy_with_logits(logits, truth, reduction="none")
        return (weights * self._left(cost) * cost).sum() / max(1, logits.shape[1])

    def _left(self, cost: Tensor) -> Tensor:
        """(1 - p) to the power of gamma, of a cost -log p; a little above 0 inside, since the root of 0 has no slope."""
        return (-torch.expm1(-cost)).clamp(min=torch.finfo(cost.dtype).tiny) ** self._gamma
