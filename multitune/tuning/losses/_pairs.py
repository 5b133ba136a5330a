"""What losses over pairs of parts share: which pairs there are, what each weighs, which rows take part, and large matrices in blocks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import Any, Literal

import torch
from torch.autograd.function import once_differentiable

from multitune.core.errors import RecipeError, did_you_mean, one_of
from multitune.core.protocols import Batch, Needs, Outputs, Tensor
from multitune.tuning.losses._answers import check_shares

Repeats = Literal["masked", "negatives"]
Cost = Callable[..., Tensor]
BLOCK_ENTRIES = 1 << 18  # of a matrix of scores: above it is taken in blocks of rows
BLOCK_ROWS = 64  # at least, so that products of matrices stay worth their call
REPEATS = "rows with the same picture or the same caption: masked, they are not each other's negatives; or negatives"


def pairs_of(loss: str, wanted: Sequence[tuple[str, str]], needs: Needs) -> dict[str, tuple[str, str]]:
    """The terms of a loss over pairs, `<first>_<second>`, and their parts: those wanted, else every pair.

    Raises: RecipeError for a pair of unknown parts, of one part with itself, or fewer than two parts.
    """
    known = list(needs.parts)
    for pair in wanted:
        for name in pair:
            if name not in known:
                found = f'"{name}" is no part that the model reads; parts are {one_of(known)}.'
                raise RecipeError("loss.pairs", found, did_you_mean(name, known))
        if pair[0] == pair[1]:
            raise RecipeError("loss.pairs", f'"{pair[0]}" is paired with itself.', "Name two parts.")
    pairs = tuple(wanted) or tuple(combinations(known, 2))
    if not pairs:
        raise RecipeError("loss", f"{loss} needs two parts; the model reads {one_of(known)}.", "Add a part.")
    return {f"{first}_{second}": (first, second) for first, second in pairs}


def shares_of(shares: Mapping[str, float], parts: Mapping[str, float], pairs: Mapping[str, tuple[str, str]]) -> dict[str, float]:
    """What multiplies each term: its share, times what its two parts weigh.

    Raises: RecipeError for a share of no pair, a weight of no part in a pair, or a negative one.
    """
    check_shares(shares, list(pairs), what="pair")
    known = list(dict.fromkeys(name for pair in pairs.values() for name in pair))
    for name, weight in parts.items():
        if name not in known:
            raise RecipeError("loss.parts", f'"{name}" is in no pair; parts are {one_of(known)}.', did_you_mean(name, known))
        if weight < 0:
            raise RecipeError(f"loss.parts.{name}", f"found {weight:g}.", "Give 0 or more.")
    if not parts:
        return dict(shares)
    return {term: shares.get(term, 1.0) * parts.get(a, 1.0) * parts.get(b, 1.0) for term, (a, b) in pairs.items()}


def both(batch: Batch, first: str, second: str) -> Tensor:
    """bool (rows,): where both parts are there."""
    return batch.presence[first] & batch.presence[second]


def embedded(loss: str, outputs: Outputs, pair: tuple[str, str], there: Tensor) -> tuple[Tensor, Tensor]:
    """The embeddings of both parts, of the rows that have them, in float32.

    Raises: RecipeError if the model gives no embeddings of a part.
    """
    if any(name not in outputs.embeddings for name in pair):
        raise RecipeError("loss", f"{loss} needs a model that embeds each part.", "Use the family dual_encoder.")
    return outputs.embeddings[pair[0]][there].float(), outputs.embeddings[pair[1]][there].float()


def twins(batch: Batch, there: Tensor, pair: tuple[str, str], *, repeats: Repeats) -> Twins:
    """Which pairs of different rows are no negatives: of one id, or with the same in one of two parts."""
    numbers: dict[str, int] = {}
    kept = [numbers.setdefault(name, len(numbers)) for name, here in zip(batch.ids, there.tolist(), strict=True) if here]
    compared = [torch.tensor(kept, dtype=torch.long, device=there.device)]
    compared += [batch.contents[name][there] for name in pair if repeats == "masked" and name in batch.contents]
    return Twins(tuple(compared))


class Twins:
    """Pairs of rows that are no negatives; numbers: each (n,), equal where two rows hold the same."""

    def __init__(self, numbers: tuple[Tensor, ...]) -> None:
        self._numbers = numbers

    def of(self, block: slice) -> Tensor:
        """bool (rows of the block, n)."""
        own = truths(block, self._numbers[0])
        same = torch.zeros_like(own)
        for held in self._numbers:
            same |= held[block, None] == held[None, :]
        return same & ~own


def truths(block: slice, rows: Tensor) -> Tensor:
    """bool (rows of the block, n): where a row meets itself. rows: (n, ...)."""
    places = torch.arange(len(rows), device=rows.device)
    return places[block, None] == places[None, :]


def fits(left: Tensor, right: Tensor) -> bool:
    """Whether the scores of all pairs are taken at once."""
    return len(left) * len(right) <= BLOCK_ENTRIES


def summed(cost: Cost, left: Tensor, right: Tensor, *scalars: Tensor) -> Tensor:
    """The sum of `cost(block, left[block], right, *scalars)` over the rows of `left`, at the memory of one block where there are many.

    cost: gives a sum, of rows that it judges each alone; block: a slice of rows. Blocks are differentiated as they are taken, so that
    none outlives the next; equal to the whole but for the order of sums.
    """
    if fits(left, right):
        return cost(slice(0, len(left)), left, right, *scalars)
    if not torch.is_grad_enabled():
        return torch.stack([cost(block, left[block], right, *scalars) for block in _blocks(left, right)]).sum()
    return _Blockwise.apply(cost, left, right, *scalars)


class _Blockwise(torch.autograd.Function):
    """Sums a cost over blocks of rows; what it keeps for the backward pass is the gradient itself."""

    @staticmethod
    def forward(ctx: Any, cost: Cost, left: Tensor, right: Tensor, *scalars: Tensor) -> Tensor:
        """The sum, its gradient taken on the way."""
        of_left, shared = torch.empty_like(left), (right.detach().requires_grad_(), *(s.detach().requires_grad_() for s in scalars))
        sums, gradients = [], [torch.zeros_like(tensor) for tensor in shared]
        for block in _blocks(left, right):
            with torch.enable_grad():
                rows = left[block].detach().requires_grad_()
                value = cost(block, rows, *shared)
                of_left[block], *more = torch.autograd.grad(value, (rows, *shared))
            sums.append(value.detach())
            for gradient, added in zip(gradients, more, strict=True):
                gradient.add_(added)
        ctx.save_for_backward(of_left, *gradients)
        return torch.stack(sums).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]: untyped
        """What was taken, scaled."""
        (outer,) = grad_outputs
        return (None, *(outer * gradient for gradient in ctx.saved_tensors))


def _blocks(left: Tensor, right: Tensor) -> list[slice]:
    size = max(BLOCK_ROWS, BLOCK_ENTRIES // len(right))
    return [slice(start, min(start + size, len(left))) for start in range(0, len(left), size)]
