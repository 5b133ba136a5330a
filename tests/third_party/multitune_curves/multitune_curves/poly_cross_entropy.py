"""Cross-entropy with a linear term more for what the true class lacks: each row's loss plus epsilon * (1 - its probability).

Source: Leng et al. 2022, arXiv:2204.12511 (Poly-1).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field
from torch.nn import functional

from multitune.core import catalog
from multitune.core.errors import RecipeError
from multitune.core.protocols import Batch, Needs, Outputs, Tensor


class Options(catalog.Options):
    """The weight of the linear term."""

    epsilon: float = Field(default=1.0, ge=-1, description="0: plain cross-entropy")


def build(options: Options, needs: Needs) -> PolyCrossEntropy:
    """The loss for these answers.

    Raises: RecipeError for an answer that is no category.
    """
    for name, need in needs.answers.items():
        if need.modality != "category":
            raise RecipeError("loss", f'poly_cross_entropy does not fit the answer "{name}" ({need.modality}).', "It takes categories.")
    return PolyCrossEntropy(tuple(needs.answers), options.epsilon)


class PolyCrossEntropy:
    """One term for each answer: the sum over the rows that have it, and their number."""

    over: Literal["rows", "pairs"] = "rows"
    shares: Mapping[str, float] = {}

    def __init__(self, terms: tuple[str, ...], epsilon: float) -> None:
        self.terms, self.epsilon = terms, epsilon

    def weights(self, batch: Batch) -> Mapping[str, float]:
        """How many rows have the answer."""
        return {name: float(batch.presence[name].sum()) for name in self.terms}

    def sums(self, outputs: Outputs, batch: Batch) -> Mapping[str, Tensor]:
        """The sums, in float32."""
        return {name: self._sum(outputs.logits[name][there].float(), batch.answers[name][there]) for name, there in self._there(batch)}

    def _there(self, batch: Batch) -> list[tuple[str, Tensor]]:
        return [(name, batch.presence[name]) for name in self.terms]

    def _sum(self, logits: Tensor, truth: Tensor) -> Tensor:
        entropy = functional.cross_entropy(logits, truth, reduction="none")
        return (entropy + self.epsilon * (1 - (-entropy).exp())).sum()
