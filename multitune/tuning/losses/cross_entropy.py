"""Cross-entropy over the classes of each category answer and the tokens of each text answer.

One term for each answer. A row without the answer, and tokens marked -100, do not count; the weight of a term is the number of
rows (of tokens, for a text) that do. `label_smoothing` spreads that share of the truth evenly over all classes. With `weights` each row
counts as much as its class weighs, and the weight of the term is the sum of those: the weighted mean.
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

IGNORED = -100


class Options(catalog.Options):
    """Smoothing, weights of classes, and the share of each answer's term in the sum."""

    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    shares: dict[str, float] = Field(default_factory=dict, description="answer: what multiplies its term; 1 by default")
    weights: ClassWeights | None = Field(default=None, description=TEXT)


def build(options: Options, needs: Needs) -> CrossEntropy:
    """The loss for these answers.

    Raises: RecipeError for an answer that is neither a category nor a text, a share for no answer, or a weight for no class.
    """
    check_answers("cross_entropy", needs, ("category", "text"))
    check_shares(options.shares, list(needs.answers), what="answer")
    return CrossEntropy(tuple(needs.answers), options, class_weights(options.weights, needs))


class CrossEntropy:
    """The sum over counted rows or tokens, and their number or weight, for each answer."""

    over: Literal["rows", "pairs"] = "rows"

    def __init__(self, answers: tuple[str, ...], options: Options, weights: Mapping[str, list[float]]) -> None:
        self.terms = answers
        self.shares: Mapping[str, float] = options.shares
        self._smoothing = options.label_smoothing
        self._weights = {name: torch.tensor(values) for name, values in weights.items()}

    def weights(self, batch: Batch) -> Mapping[str, float]:
        """How many rows or tokens count; with weights of classes, the sum of theirs."""
        return {name: self._weight(name, batch) for name in self.terms}

    def sums(self, outputs: Outputs, batch: Batch) -> Mapping[str, Tensor]:
        """The summed cross-entropy of what counts, in float32."""
        result: dict[str, Tensor] = {}
        for name in self.terms:
            counted = _counted(batch, name)
            logits, truth = outputs.logits[name], batch.answers[name]
            if truth.ndim > 1 or not bool(counted.all()):  # taken out, not multiplied by zero: a NaN elsewhere cannot leak in
                logits, truth = logits[counted], truth[counted]
            weight = self._weights[name].to(logits.device) if name in self._weights else None
            result[name] = functional.cross_entropy(logits.float(), truth, weight=weight, reduction="sum", label_smoothing=self._smoothing)
        return result

    def _weight(self, name: str, batch: Batch) -> float:
        counted = _counted(batch, name)
        if name not in self._weights:
            return float(counted.sum())
        return float(self._weights[name][batch.answers[name][counted].cpu()].double().sum())


def _counted(batch: Batch, name: str) -> Tensor:
    truth = batch.answers[name]
    present = batch.presence[name]
    return (truth != IGNORED) & (present[:, None] if truth.ndim > 1 else present)
