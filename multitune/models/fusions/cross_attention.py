"""Learned queries read the tokens of all parts together, so that what one part means may depend on another.

Padding and absent parts are left out of the attention; a learned token that is always there keeps a row without any part
finite. Blocks are pre-norm with an MLP.
Source: the latents of Jaegle et al. 2021, arXiv:2103.03206, without sharing weights between blocks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from multitune.core import catalog
from multitune.core.errors import ModelError
from multitune.models.joining import JOINT, Slot, linear
from multitune.models.layers.attention import Attention
from multitune.models.layers.sequence import PartTokens


class Options(catalog.Options):
    """The size of the fusion."""

    layers: int = Field(default=2, ge=1)
    heads: int = Field(default=4, ge=1)
    queries: int = Field(default=4, ge=1, description="learned vectors that read the tokens")


class Block(nn.Module):
    """Queries read the tokens, then each other, then think: three residual steps, each after a norm."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm_query, self.norm_tokens, self.norm_self, self.norm_mlp = (nn.LayerNorm(width) for _ in range(4))
        self.read = Attention(width, heads)
        self.exchange = Attention(width, heads)
        self.mlp = nn.Sequential(linear(width, 4 * width), nn.GELU(), linear(4 * width, width, gain=0.5))

    def forward(self, queries: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        """queries (rows, q, width) -> the same shape."""
        queries = queries + self.read(self.norm_query(queries), self.norm_tokens(tokens), mask)
        among = self.norm_self(queries)
        queries = queries + self.exchange(among, among, None)
        made: Tensor = queries + self.mlp(self.norm_mlp(queries))
        return made


class CrossAttention(nn.Module):
    """Tokens of each part to one width, with a vector that says which part; blocks of queries; their outputs side by side."""

    reads: Literal["pooled", "tokens"] = "tokens"

    def __init__(self, parts: Mapping[str, int], width: int, options: Options) -> None:
        super().__init__()
        self.slots = {JOINT: width}
        self.sequence = PartTokens(parts, width)
        self.nothing = nn.Parameter(torch.zeros(width))
        self.queries = nn.Parameter(torch.randn(options.queries, width))
        self.blocks = nn.ModuleList([Block(width, options.heads) for _ in range(options.layers)])
        self.last = nn.LayerNorm(width)
        self.mix = linear(options.queries * width, width)

    def forward(self, parts: Mapping[str, Mapping[str, Tensor]], presence: Mapping[str, Tensor]) -> Mapping[str, Slot]:
        """One slot, always there."""
        given = self.sequence(parts, presence)
        rows = len(given.tokens)
        tokens = torch.cat([self.nothing.expand(rows, 1, -1), given.tokens], 1)
        mask = torch.cat([torch.ones_like(given.mask[:, :1]), given.mask], 1)
        queries = self.queries.expand(rows, -1, -1)
        for block in self.blocks:
            queries = block(queries, tokens, mask)
        values = nn.functional.gelu(self.mix(self.last(queries).flatten(1)))
        return {JOINT: Slot(values, torch.ones_like(mask[:, 0]))}


def build(options: Options, parts: Mapping[str, int], width: int) -> CrossAttention:
    """The fusion.

    Raises: ModelError if the width cannot be shared out among the heads.
    """
    if width % options.heads:
        raise ModelError(
            "model.fuse.heads", f"the joint width {width} is no multiple of {options.heads} heads.", "Change heads or model.width."
        )
    return CrossAttention(parts, width, options)
