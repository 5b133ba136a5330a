"""The tokens of all parts in one sequence of one width, each with a vector that says which part it is of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from multitune.models.encoders import child
from multitune.models.joining import linear


@dataclass(frozen=True)
class Joined:
    """tokens (rows, t, width), parts in their order; mask bool (rows, t), false where padding or of an absent part."""

    tokens: Tensor
    mask: Tensor


class PartTokens(nn.Module):
    """norm -> linear to `width`, plus the part's own vector, for each part."""

    def __init__(self, parts: Mapping[str, int], width: int) -> None:
        super().__init__()
        self.parts = tuple(parts)
        self.norm = nn.ModuleDict({child(name): nn.LayerNorm(size) for name, size in parts.items()})
        self.project = nn.ModuleDict({child(name): linear(size, width) for name, size in parts.items()})
        self.which = nn.ParameterDict({child(name): nn.Parameter(torch.randn(width) * 0.5) for name in parts})

    def forward(self, parts: Mapping[str, Mapping[str, Tensor]], presence: Mapping[str, Tensor]) -> Joined:
        """parts: name -> `tokens` (rows, n, width of its tower) and `mask` (rows, n); presence: name -> bool (rows,)."""
        given = [self.project[child(name)](self.norm[child(name)](parts[name]["tokens"])) + self.which[child(name)] for name in self.parts]
        read = [parts[name]["mask"] & presence[name].unsqueeze(-1) for name in self.parts]
        return Joined(torch.cat(given, 1), torch.cat(read, 1))
