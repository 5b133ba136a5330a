"""Attention and the block around it: what towers from scratch and fusions are built of."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from multitune.models.joining import linear


class Attention(nn.Module):
    """`heads` heads of attention from queries of `width` to tokens, of `source` numbers each where they are of another width."""

    def __init__(self, width: int, heads: int, *, source: int = 0) -> None:
        super().__init__()
        self.heads = heads
        self.query = linear(width, width)
        self.key, self.value = (linear(source or width, width) for _ in range(2))
        self.out = linear(width, width)

    def forward(self, queries: Tensor, tokens: Tensor, mask: Tensor | None) -> Tensor:
        """queries (rows, q, width), tokens (rows, t, source), mask bool (rows, t), true where read -> (rows, q, width)."""
        query, key, value = (
            layer(given).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer, given in ((self.query, queries), (self.key, tokens), (self.value, tokens))
        )
        seen = None if mask is None else mask[:, None, None, :]
        read = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=seen)
        made: Tensor = self.out(read.transpose(1, 2).flatten(2))
        return made


class Block(nn.Module):
    """Tokens read each other, then think: two residual steps, each after a norm.

    Source: the pre-norm transformer of Xiong et al. 2020, arXiv:2002.04745.
    """

    def __init__(self, width: int, heads: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm_exchange, self.norm_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
        self.exchange = Attention(width, heads)
        self.mlp = nn.Sequential(linear(width, 4 * width), nn.GELU(), linear(4 * width, width, gain=0.5))
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """tokens (rows, t, width), mask bool (rows, t), true where read -> the same shape."""
        among = self.norm_exchange(tokens)
        tokens = tokens + self.dropout(self.exchange(among, among, mask))
        made: Tensor = tokens + self.dropout(self.mlp(self.norm_mlp(tokens)))
        return made


def sines(places: Tensor, width: int) -> Tensor:
    """A vector for each place: sines and cosines of each coordinate, over wavelengths from 2 pi to 2 pi * 10,000 in equal ratios.

    places (n, dims) -> (n, width); width is a multiple of 2 * dims.
    Source: Vaswani et al. 2017, arXiv:1706.03762.
    """
    count = width // (2 * places.shape[1])
    rates = 10_000.0 ** -(torch.arange(count, device=places.device) / max(1, count - 1))
    angles = (places.unsqueeze(-1).float() * rates).flatten(1)
    return torch.cat([angles.sin(), angles.cos()], 1)
