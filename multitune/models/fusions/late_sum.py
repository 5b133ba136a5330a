"""Each part has its own head, and the logits of the parts that are there are added.

What the answer owes to two parts together, and to neither alone, it cannot learn.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from torch import Tensor, nn

from multitune.core import catalog
from multitune.models.encoders import child
from multitune.models.joining import Slot


class Options(catalog.Options):
    """No options."""


class LateSum(nn.Module):
    """One slot per part: its pooled vector, normalised."""

    reads: Literal["pooled", "tokens"] = "pooled"

    def __init__(self, parts: Mapping[str, int]) -> None:
        super().__init__()
        self.slots = dict(parts)
        self.norm = nn.ModuleDict({child(name): nn.LayerNorm(width) for name, width in parts.items()})

    def forward(self, parts: Mapping[str, Mapping[str, Tensor]], presence: Mapping[str, Tensor]) -> Mapping[str, Slot]:
        """A slot for each part, there where the part is."""
        return {name: Slot(self.norm[child(name)](parts[name]["pooled"]), presence[name]) for name in self.slots}


def build(options: Options, parts: Mapping[str, int], width: int) -> LateSum:
    """The fusion; `width` has no use here."""
    return LateSum(parts)
