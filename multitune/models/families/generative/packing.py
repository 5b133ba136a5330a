"""Pieces of a sequence joined so that no row has a hole: what is masked moves to the left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Packed:
    """values (rows, tokens, width), mask (rows, tokens): false on the left, true from each row's first real token on."""

    values: Tensor
    mask: Tensor

    @property
    def positions(self) -> Tensor:
        """int64 (rows, tokens): 0 at each row's first real token and on what is masked before it."""
        return (self.mask.cumsum(1) - 1).clamp(min=0)

    def then(self, values: Tensor, mask: Tensor) -> Packed:
        """These tokens followed by others, which may be masked at their end."""
        return Packed(torch.cat([self.values, values.to(self.values.dtype)], 1), torch.cat([self.mask, mask], 1))


def pack(pieces: Sequence[tuple[Tensor, Tensor]]) -> Packed:
    """Join pieces (rows, n, width) with masks (rows, n) in order; masked tokens become zeros and move to the front of their row.

    The first column is always masked: attention then takes the same path whether or not a row has padding, so that a row's bits do
    not depend on its neighbours.
    """
    values = torch.cat([piece for piece, _ in pieces], 1)
    mask = torch.cat([real for _, real in pieces], 1)
    order = mask.to(torch.int8).argsort(dim=1, stable=True)
    mask = mask.gather(1, order)
    values = values.gather(1, order.unsqueeze(-1).expand_as(values)).masked_fill(~mask.unsqueeze(-1), 0)
    return Packed(torch.nn.functional.pad(values, (0, 0, 1, 0)), torch.nn.functional.pad(mask, (1, 0)))
