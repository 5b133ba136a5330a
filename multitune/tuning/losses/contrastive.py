"""Symmetric InfoNCE over pairs of parts: each row's parts find each other among all rows of the step.

It sees every embedding of the global batch at the memory of one micro-batch (gradient caching, a property of the step). Rows
without one of the two parts leave both sides. Rows of the same id (a mix may draw one twice) are not each other's negatives.
The weight of a pair's term is the number of rows that have both parts.

Source: van den Oord et al. 2018, arXiv:1807.03748; Radford et al. 2021, arXiv:2103.00020.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Literal

import torch
from pydantic import Field
from torch.nn import functional

from multitune.core import catalog
from multitune.core.errors import RecipeError, did_you_mean, one_of
from multitune.core.protocols import Batch, Needs, Outputs, Tensor


class Options(catalog.Options):
    """Which parts are brought together, and how."""

    pairs: list[tuple[str, str]] = Field(default_factory=list, description="such as [[image, caption]]; empty: every pair of parts")
    symmetric: bool = Field(default=True, description="false: only the first part of a pair looks for the second")
    shares: dict[str, float] = Field(default_factory=dict, description="<first>_<second>: what multiplies its term; 1 by default")


def build(options: Options, needs: Needs) -> Contrastive:
    """The loss for these parts.

    Raises: RecipeError for a pair of unknown parts, fewer than two parts, or a share for no pair.
    """
    known = list(needs.parts)
    for pair in options.pairs:
        for name in pair:
            if name not in known:
                found = f'"{name}" is no part that the model reads; parts are {one_of(known)}.'
                raise RecipeError("loss.pairs", found, did_you_mean(name, known))
        if pair[0] == pair[1]:
            raise RecipeError("loss.pairs", f'"{pair[0]}" is paired with itself.', "Name two parts.")
    pairs = tuple(options.pairs) or tuple(combinations(known, 2))
    if not pairs:
        raise RecipeError("loss", f"contrastive needs two parts; the model reads {one_of(known)}.", "Add a part.")
    terms = {f"{first}_{second}": (first, second) for first, second in pairs}
    for name in options.shares:
        if name not in terms:
            raise RecipeError("loss.shares", f'"{name}" is no pair; pairs are {one_of(terms)}.', did_you_mean(name, list(terms)))
    return Contrastive(terms, options)


class Contrastive:
    """The sum over rows that have both parts, and their number, for each pair."""

    over: Literal["rows", "pairs"] = "pairs"

    def __init__(self, pairs: Mapping[str, tuple[str, str]], options: Options) -> None:
        self.terms = tuple(pairs)
        self.shares: Mapping[str, float] = options.shares
        self._pairs = pairs
        self._symmetric = options.symmetric

    def weights(self, batch: Batch) -> Mapping[str, float]:
        """How many rows have both parts."""
        return {term: float(_both(batch, *pair).sum()) for term, pair in self._pairs.items()}

    def sums(self, outputs: Outputs, batch: Batch) -> Mapping[str, Tensor]:
        """The summed loss, in float32; `outputs.scalars["scale"]` multiplies the cosines.

        Raises: RecipeError if the model gives no embeddings of a part.
        """
        result: dict[str, Tensor] = {}
        for term, (first, second) in self._pairs.items():
            if first not in outputs.embeddings or second not in outputs.embeddings:
                raise RecipeError("loss", "contrastive needs a model that embeds each part.", "Use the family dual_encoder.")
            both = _both(batch, first, second)
            if not bool(both.any()):
                result[term] = outputs.embeddings[first].sum() * 0.0
                continue
            left, right = outputs.embeddings[first][both].float(), outputs.embeddings[second][both].float()
            cosines = outputs.scalars["scale"].float() * (left @ right.T)
            scores = cosines.masked_fill(_twins(batch, both), float("-inf"))
            truth = torch.arange(len(scores), device=scores.device)
            result[term] = functional.cross_entropy(scores, truth, reduction="sum")
            if self._symmetric:
                result[term] = 0.5 * (result[term] + functional.cross_entropy(scores.T, truth, reduction="sum"))
        return result


def _both(batch: Batch, first: str, second: str) -> Tensor:
    return batch.presence[first] & batch.presence[second]


def _twins(batch: Batch, both: Tensor) -> Tensor:
    """Pairs of different rows with one id."""
    numbers: dict[str, int] = {}
    kept = [numbers.setdefault(name, len(numbers)) for name, there in zip(batch.ids, both.tolist(), strict=True) if there]
    ids = torch.tensor(kept, dtype=torch.long, device=both.device)
    return (ids[:, None] == ids[None, :]) & ~torch.eye(len(kept), dtype=torch.bool, device=both.device)
