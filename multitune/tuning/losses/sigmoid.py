"""Sigmoid loss over pairs of parts (SigLIP): each two rows are judged alone, a pair or none.

It wants a model with a learned scale and a learned bias: `model: {name: dual_encoder, scale: 10, bias: -10, ...}`, or one that has both,
as SigLIP does. It sees every embedding of the global batch at the memory of one micro-batch. Rows without one of the two parts leave both
sides; rows of the same id (a mix may draw one twice), or with the same file or text in one of the two parts, are not judged against each
other. The sum is divided by the number of rows. From 513 rows on it is taken in blocks of rows, so that memory grows with the rows of a
step and not with their square.

Source: Zhai et al. 2023, arXiv:2303.15343; the scale is the temperature itself, the paper learns its logarithm, as our models do.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Literal

from pydantic import Field
from torch.nn import functional

from multitune.core import catalog
from multitune.core.errors import RecipeError
from multitune.core.protocols import Batch, Needs, Outputs, Tensor
from multitune.tuning.losses._pairs import REPEATS, Repeats, Twins, both, embedded, pairs_of, shares_of, summed, truths, twins

SCALARS = ("scale", "bias")  # what of the model it reads beside embeddings
ADVICE = "Give it one, model.bias=-10 with model.scale=10, or use contrastive."


class Options(catalog.Options):
    """Which parts are brought together, and what each pair weighs."""

    pairs: list[tuple[str, str]] = Field(default_factory=list, description="such as [[image, caption]]; empty: every pair of parts")
    shares: dict[str, float] = Field(default_factory=dict, description="<first>_<second>: what multiplies its term; 1 by default")
    parts: dict[str, float] = Field(default_factory=dict, description="part: what multiplies the terms of all its pairs; 1 by default")
    repeats: Repeats = Field(default="masked", description=REPEATS)


def build(options: Options, needs: Needs) -> Sigmoid:
    """The loss for these parts.

    Raises: RecipeError for a pair of unknown parts, fewer than two parts, or a share for no pair.
    """
    pairs = pairs_of("sigmoid", options.pairs, needs)
    return Sigmoid(pairs, shares_of(options.shares, options.parts, pairs), repeats=options.repeats)


class Sigmoid:
    """The sum over all pairs of rows that have both parts, and the number of those rows, for each pair of parts."""

    over: Literal["rows", "pairs"] = "pairs"

    def __init__(self, pairs: Mapping[str, tuple[str, str]], shares: Mapping[str, float], *, repeats: Repeats = "masked") -> None:
        self.terms = tuple(pairs)
        self.shares: Mapping[str, float] = shares
        self._pairs = pairs
        self._repeats: Repeats = repeats

    def weights(self, batch: Batch) -> Mapping[str, float]:
        """How many rows have both parts."""
        return {term: float(both(batch, *pair).sum()) for term, pair in self._pairs.items()}

    def sums(self, outputs: Outputs, batch: Batch) -> Mapping[str, Tensor]:
        """The summed loss, in float32; `outputs.scalars["scale"]` multiplies the cosines, `["bias"]` is added.

        Raises: RecipeError if the model gives no embeddings of a part, or has no bias.
        """
        if "bias" not in outputs.scalars:
            raise RecipeError("loss", "sigmoid needs a learned bias, which the model has not.", ADVICE)
        scale, bias = outputs.scalars["scale"].float(), outputs.scalars["bias"].float()
        result: dict[str, Tensor] = {}
        for term, pair in self._pairs.items():
            there = both(batch, *pair)
            left, right = embedded("sigmoid", outputs, pair, there)
            same = twins(batch, there, pair, repeats=self._repeats)
            result[term] = summed(partial(_cost, same), left, right, scale, bias)
        return result


def _cost(same: Twins, block: slice, rows: Tensor, others: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """The sum over the pairs of a block of rows with all others, but for twins."""
    signs = 2.0 * truths(block, others) - 1.0
    costs = -functional.logsigmoid(signs * (scale * (rows @ others.T) + bias))
    return costs.masked_fill(same.of(block), 0.0).sum()
