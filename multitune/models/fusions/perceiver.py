"""Learned latents read the tokens of all parts, think among themselves, and read again with the same weights.

Its cost grows with the number of tokens, not with its square, and its weights do not grow with `readings`. Padding and absent
parts are left out of the attention; a learned token that is always there keeps a row without any part finite. The latents'
mean becomes the joint vector.

Source: Jaegle et al. 2021, arXiv:2103.03206, with weights shared by all readings.
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
from multitune.models.layers.attention import Attention, Block
from multitune.models.layers.sequence import PartTokens


class Options(catalog.Options):
    """The size of the fusion."""

    latents: int = Field(default=16, ge=1, description="learned vectors that read the tokens")
    layers: int = Field(default=2, ge=1, description="blocks among the latents, after each reading")
    readings: int = Field(default=2, ge=1, description="how often the tokens are read, with the same weights")
    heads: int = Field(default=4, ge=1)


class Perceiver(nn.Module):
    """latents, `readings` times: read the tokens -> blocks."""

    reads: Literal["pooled", "tokens"] = "tokens"

    def __init__(self, parts: Mapping[str, int], width: int, options: Options) -> None:
        super().__init__()
        self.slots = {JOINT: width}
        self.readings = options.readings
        self.sequence = PartTokens(parts, width)
        self.nothing = nn.Parameter(torch.zeros(width))
        self.latents = nn.Parameter(torch.randn(options.latents, width))
        self.norm_latents, self.norm_tokens = nn.LayerNorm(width), nn.LayerNorm(width)
        self.read = Attention(width, options.heads)
        self.blocks = nn.ModuleList([Block(width, options.heads) for _ in range(options.layers)])
        self.last = nn.LayerNorm(width)
        self.mix = linear(width, width)

    def forward(self, parts: Mapping[str, Mapping[str, Tensor]], presence: Mapping[str, Tensor]) -> Mapping[str, Slot]:
        """One slot, always there."""
        given = self.sequence(parts, presence)
        tokens = self.norm_tokens(torch.cat([self.nothing.expand(len(given.tokens), 1, -1), given.tokens], 1))
        mask = torch.cat([torch.ones_like(given.mask[:, :1]), given.mask], 1)
        latents = self.latents.expand(len(tokens), -1, -1)
        for _ in range(self.readings):
            latents = latents + self.read(self.norm_latents(latents), tokens, mask)
            for block in self.blocks:
                latents = block(latents)
        values = nn.functional.gelu(self.mix(self.last(latents).mean(1)))
        return {JOINT: Slot(values, torch.ones_like(mask[:, 0]))}


def build(options: Options, parts: Mapping[str, int], width: int) -> Perceiver:
    """The fusion.

    Raises: ModelError if the width cannot be shared out among the heads.
    """
    if width % options.heads:
        raise ModelError(
            "model.fuse.heads", f"the joint width {width} is no multiple of {options.heads} heads.", "Change heads or model.width."
        )
    return Perceiver(parts, width, options)
