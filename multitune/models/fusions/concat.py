"""The parts' vectors side by side, through one hidden layer.

The place of a part that is absent holds a vector of its own, which is learned and starts at zero. A part that is alone has none:
a row without it has nothing to say.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from multitune.core import catalog
from multitune.models.encoders import child
from multitune.models.joining import JOINT, Slot, linear


class Options(catalog.Options):
    """No options."""


class Concat(nn.Module):
    """[norm(part) or its absent vector, ...] -> linear -> GELU."""

    reads: Literal["pooled", "tokens"] = "pooled"

    def __init__(self, parts: Mapping[str, int], width: int) -> None:
        super().__init__()
        self.slots = {JOINT: width}
        self.parts = tuple(parts)
        self.norm = nn.ModuleDict({child(name): nn.LayerNorm(size) for name, size in parts.items()})
        held = parts if len(parts) > 1 else {}
        self.absent = nn.ParameterDict({child(name): nn.Parameter(torch.zeros(size)) for name, size in held.items()})
        self.mix = linear(sum(parts.values()), width)

    def forward(self, parts: Mapping[str, Mapping[str, Tensor]], presence: Mapping[str, Tensor]) -> Mapping[str, Slot]:
        """One slot, always there."""
        vectors = [self._vector(name, parts[name]["pooled"], presence[name]) for name in self.parts]
        values = nn.functional.gelu(self.mix(torch.cat(vectors, -1)))
        return {JOINT: Slot(values, torch.ones_like(presence[self.parts[0]]))}

    def _vector(self, name: str, pooled: Tensor, there: Tensor) -> Tensor:
        given = self.norm[child(name)](pooled)
        return torch.where(there.unsqueeze(-1), given, self.absent[child(name)]) if self.absent else given


def build(options: Options, parts: Mapping[str, int], width: int) -> Concat:
    """The fusion."""
    return Concat(parts, width)
