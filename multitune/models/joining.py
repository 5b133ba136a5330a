"""What a fusion plug-in is, and the heads that read it; what a connector plug-in is, and how tokens become fewer.

A fusion plug-in gives `build(options, parts: Mapping[str, int], width: int) -> Fusion`: `parts` says how wide each part's
vector is, `width` how wide the joint one should be. A connector plug-in gives `build(options, width: int, target: int) ->
Connector`, from a tower's width to that of a language model's embeddings.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from pydantic import Field
from torch import Tensor, nn

from multitune.core import catalog
from multitune.models.encoders import child

JOINT = "joint"


@dataclass(frozen=True)
class Slot:
    """A vector that heads read: values (rows, width), there bool (rows,); where it is not there, it says nothing."""

    values: Tensor
    there: Tensor


class Fusion(Protocol):
    """A torch module.

    reads: `pooled` (rows, width), or `tokens` (rows, tokens, width) with `mask`. slots: name -> width of what it gives.
    """

    reads: Literal["pooled", "tokens"]
    slots: Mapping[str, int]

    def __call__(self, parts: Mapping[str, Mapping[str, Tensor]], presence: Mapping[str, Tensor]) -> Mapping[str, Slot]: ...


class Connector(Protocol):
    """A torch module: tokens (rows, n, width) with mask (rows, n), true where real -> (rows, m, target) with mask (rows, m)."""

    def __call__(self, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]: ...


class Heads(nn.ModuleDict):
    """One linear head per answer over each slot; what slots say is added, where they are there.

    Parameters are called `<answer>.weight`, or `<answer>.<slot>.weight` where a fusion gives several slots.
    """

    def __init__(self, slots: Mapping[str, int], answers: Mapping[str, int], dropout: float) -> None:
        super().__init__()
        self._single = set(slots) == {JOINT}
        self._answers = tuple(answers)
        self._dropout = nn.Dropout(dropout)
        for answer, size in answers.items():
            heads = {child(slot): linear(width, size) for slot, width in slots.items()}
            self[child(answer)] = heads[JOINT] if self._single else nn.ModuleDict(heads)

    def read(self, slots: Mapping[str, Slot]) -> dict[str, Tensor]:
        """Logits (rows, size) by answer."""
        return {answer: self._one(self[child(answer)], slots) for answer in self._answers}

    def _one(self, head: nn.Module, slots: Mapping[str, Slot]) -> Tensor:
        if self._single:
            made: Tensor = head(self._dropout(slots[JOINT].values))
            return made
        assert isinstance(head, nn.ModuleDict)
        scores = [head[child(name)](self._dropout(slot.values)) * slot.there.unsqueeze(-1) for name, slot in slots.items()]
        return torch.stack(scores).sum(0)


def linear(width: int, size: int, *, gain: float = 1.0) -> nn.Linear:
    """A linear layer whose weights start at gain / sqrt(fan-in) and whose bias starts at zero."""
    made = nn.Linear(width, size)
    nn.init.normal_(made.weight, std=gain / math.sqrt(width))
    nn.init.zeros_(made.bias)
    return made


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
