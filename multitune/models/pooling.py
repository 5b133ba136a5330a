"""Fewer tokens for a language model to read: neighbours are averaged, padding left out."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from multitune.core import catalog


class TokenPooling(catalog.Options):
    """tokens: how many tokens each part becomes; 0: as many as its tower gives."""

    tokens: int = Field(default=0, ge=0)


def pool_tokens(tokens: Tensor, mask: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Average each row's real tokens into `count` stretches of equal length, in order.

    tokens (rows, n, width), mask (rows, n), true where real. Stretches are those of adaptive average pooling over the row's real
    tokens alone, so padding changes nothing; a row with fewer than `count` repeats some, a row with none has an all-false mask.
    """
    if count == 0:
        return tokens, mask
    real = mask.sum(1, keepdim=True)
    place = (mask.cumsum(1) - 1).unsqueeze(1)
    step = torch.arange(count, device=tokens.device).unsqueeze(0)
    start = (step * real // count).unsqueeze(-1)
    stop = -(-(step + 1) * real // count).unsqueeze(-1)
    inside = (mask.unsqueeze(1) & (place >= start) & (place < stop)).to(tokens.dtype)
    weights = inside / inside.sum(-1, keepdim=True).clamp(min=1)
    return weights @ tokens, (real > 0).expand(-1, count)
