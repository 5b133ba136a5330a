"""What losses over pairs of parts share: which pairs there are, what each weighs, and which rows take part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Literal

import torch

from multitune.core.errors import RecipeError, did_you_mean, one_of
from multitune.core.protocols import Batch, Needs, Outputs, Tensor
from multitune.tuning.losses._answers import check_shares

Repeats = Literal["masked", "negatives"]
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


def twins(batch: Batch, there: Tensor, pair: tuple[str, str], *, repeats: Repeats) -> Tensor:
    """bool (n, n): pairs of different rows that are no negatives: of one id, or with the same in one of two parts."""
    numbers: dict[str, int] = {}
    kept = [numbers.setdefault(name, len(numbers)) for name, here in zip(batch.ids, there.tolist(), strict=True) if here]
    ids = torch.tensor(kept, dtype=torch.long, device=there.device)
    same = ids[:, None] == ids[None, :]
    for name in pair if repeats == "masked" else ():
        if name in batch.contents:
            held = batch.contents[name][there]
            same = same | (held[:, None] == held[None, :])
    return same & ~torch.eye(len(kept), dtype=torch.bool, device=there.device)
