"""One transformer over the tokens of all parts, side by side in one sequence, so that every token may read every other.

A vector for each part says which part a token is of. Padding and absent parts are left out of the attention. A token of its own, which
is always there, becomes the joint vector. It costs the square of all tokens together; `perceiver` and `cross_attention` cost less.

Source: Chen et al. 2020, arXiv:1909.11740 (UNITER), with pre-norm blocks and any parts.
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
from multitune.models.layers.attention import Block
from multitune.models.layers.sequence import PartTokens


class Options(catalog.Options):
    """The size of the fusion."""

    layers: int = Field(default=2, ge=1)
    heads: int = Field(default=4, ge=1)
    dropout: float = Field(default=0.0, ge=0, lt=1, description="of what each block adds, in training")


class Unified(nn.Module):
    """[joint, part tokens, part tokens, ...] -> blocks -> the joint token."""

    reads: Literal["pooled", "tokens"] = "tokens"

    def __init__(self, parts: Mapping[str, int], width: int, options: Options) -> None:
        super().__init__()
        self.slots = {JOINT: width}
        self.sequence = PartTokens(parts, width)
        self.joint = nn.Parameter(torch.randn(width))
        self.blocks = nn.ModuleList([Block(width, options.heads, dropout=options.dropout) for _ in range(options.layers)])
        self.last = nn.LayerNorm(width)
        self.mix = linear(width, width)

    def forward(self, parts: Mapping[str, Mapping[str, Tensor]], presence: Mapping[str, Tensor]) -> Mapping[str, Slot]:
        """One slot, always there."""
        given = self.sequence(parts, presence)
        tokens = torch.cat([self.joint.expand(len(given.tokens), 1, -1), given.tokens], 1)
        mask = torch.cat([torch.ones_like(given.mask[:, :1]), given.mask], 1)
        for block in self.blocks:
            tokens = block(tokens, mask)
        values = nn.functional.gelu(self.mix(self.last(tokens[:, 0])))
        return {JOINT: Slot(values, torch.ones_like(mask[:, 0]))}


def build(options: Options, parts: Mapping[str, int], width: int) -> Unified:
    """The fusion.

    Raises: ModelError if the width cannot be shared out among the heads.
    """
    if width % options.heads:
        raise ModelError(
            "model.fuse.heads", f"the joint width {width} is no multiple of {options.heads} heads.", "Change heads or model.width."
        )
    return Unified(parts, width, options)
