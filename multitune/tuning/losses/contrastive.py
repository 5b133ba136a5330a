"""Symmetric InfoNCE over pairs of parts: each row's parts find each other among all rows of the step.

It sees every embedding of the global batch at the memory of one micro-batch (gradient caching, a property of the step). Rows
without one of the two parts leave both sides. Rows of the same id (a mix may draw one twice), and rows that hold the same file or text in
one of the two parts (a picture with five captions), are not each other's negatives.
The weight of a pair's term is the number of rows that have both parts. From 513 rows on the scores are taken in blocks of rows, so that
memory grows with the rows of a step and not with their square.

Source: van den Oord et al. 2018, arXiv:1807.03748; Radford et al. 2021, arXiv:2103.00020.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from pydantic import Field
from torch.nn import functional

from multitune.core import catalog
from multitune.core.protocols import Batch, Needs, Outputs, Tensor
from multitune.tuning.losses._pairs import REPEATS, Repeats, Twins, both, embedded, fits, pairs_of, shares_of, summed, twins


class Options(catalog.Options):
    """Which parts are brought together, and how."""

    pairs: list[tuple[str, str]] = Field(default_factory=list, description="such as [[image, caption]]; empty: every pair of parts")
    symmetric: bool = Field(default=True, description="false: only the first part of a pair looks for the second")
    shares: dict[str, float] = Field(default_factory=dict, description="<first>_<second>: what multiplies its term; 1 by default")
    parts: dict[str, float] | None = Field(default=None, description="part: what multiplies the terms of all its pairs; 1 by default")
    repeats: Repeats = Field(default="masked", description=REPEATS)


def build(options: Options, needs: Needs) -> Contrastive:
    """The loss for these parts.

    Raises: RecipeError for a pair of unknown parts, fewer than two parts, or a share for no pair.
    """
    pairs = pairs_of("contrastive", options.pairs, needs)
    return Contrastive(pairs, shares_of(options.shares, options.parts or {}, pairs), symmetric=options.symmetric, repeats=options.repeats)


class Contrastive:
    """The sum over rows that have both parts, and their number, for each pair."""

    over: Literal["rows", "pairs"] = "pairs"

    def __init__(
        self, pairs: Mapping[str, tuple[str, str]], shares: Mapping[str, float], *, symmetric: bool, repeats: Repeats = "masked"
    ) -> None:
        self.terms = tuple(pairs)
        self.shares: Mapping[str, float] = shares
        self._pairs = pairs
        self._repeats: Repeats = repeats
        self._symmetric = symmetric

    def weights(self, batch: Batch) -> Mapping[str, float]:
        """How many rows have both parts."""
        return {term: float(both(batch, *pair).sum()) for term, pair in self._pairs.items()}

    def sums(self, outputs: Outputs, batch: Batch) -> Mapping[str, Tensor]:
        """The summed loss, in float32; `outputs.scalars["scale"]` multiplies the cosines.

        Raises: RecipeError if the model gives no embeddings of a part.
        """
        result: dict[str, Tensor] = {}
        for term, pair in self._pairs.items():
            there = both(batch, *pair)
            left, right = embedded("contrastive", outputs, pair, there)
            if not len(left):
                result[term] = outputs.embeddings[pair[0]].sum() * 0.0
                continue
            same, scale = twins(batch, there, pair, repeats=self._repeats), outputs.scalars["scale"].float()
            result[term] = self._whole(left, right, scale, same) if fits(left, right) else self._blockwise(left, right, scale, same)
        return result

    def _whole(self, left: Tensor, right: Tensor, scale: Tensor, same: Twins) -> Tensor:
        """Both directions from one matrix of scores."""
        scores = _scores(slice(0, len(left)), left, right, scale, same)
        truth = torch.arange(len(scores), device=scores.device)
        forth = functional.cross_entropy(scores, truth, reduction="sum")
        return 0.5 * (forth + functional.cross_entropy(scores.T, truth, reduction="sum")) if self._symmetric else forth

    def _blockwise(self, left: Tensor, right: Tensor, scale: Tensor, same: Twins) -> Tensor:
        """Each direction by itself, block of rows by block of rows: what is no negative is so both ways."""

        def cost(block: slice, rows: Tensor, others: Tensor, scale: Tensor) -> Tensor:
            truth = torch.arange(block.start, block.stop, device=rows.device)
            return functional.cross_entropy(_scores(block, rows, others, scale, same), truth, reduction="sum")

        forth = summed(cost, left, right, scale)
        return 0.5 * (forth + summed(cost, right, left, scale)) if self._symmetric else forth


def _scores(block: slice, rows: Tensor, others: Tensor, scale: Tensor, same: Twins) -> Tensor:
    """(rows of the block, n): scaled cosines, those of twins out of the way."""
    return (scale * (rows @ others.T)).masked_fill(same.of(block), float("-inf"))
