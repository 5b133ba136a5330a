"""Stochastic gradient descent with momentum: the least memory, and rates a hundred times those of AdamW.

Weight decay is part of the gradient. Convolutional towers like it; transformers seldom do.
"""

from __future__ import annotations

from typing import Any, Literal, Self

import torch
from pydantic import Field, model_validator

from multitune.core import catalog

READS: tuple[str, ...] = ()
DECAY: Literal["coupled", "decoupled"] = "coupled"
STATE = "the momentum in fp32"


class Options(catalog.Options):
    """Momentum."""

    momentum: float = Field(default=0.9, ge=0, lt=1)
    nesterov: bool = Field(default=False, description="look ahead along the momentum")

    @model_validator(mode="after")
    def _looks_along_something(self) -> Self:
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov looks ahead along the momentum, which is 0: give it one, or leave nesterov out")
        return self


def build(options: Options, groups: list[dict[str, Any]], *, betas: tuple[float, float], eps: float) -> torch.optim.Optimizer:
    """The optimizer of these groups; it has no use for betas and eps.

    Not fused: torch's fused kernel (2.15) takes no group of which some tensors have a momentum and others, which start later, none yet.
    """
    return torch.optim.SGD(groups, lr=0.0, momentum=options.momentum, nesterov=options.nesterov, foreach=True)


def state_bytes(options: Options, shape: tuple[int, ...]) -> int:
    """Bytes of the state of a tensor."""
    return 4 * torch.Size(shape).numel() if options.momentum else 0
