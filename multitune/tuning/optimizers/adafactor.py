"""Adafactor: of each matrix the mean squares of its rows and columns alone, so almost no memory for the state.

torch's own. `train.lr` is the largest relative step: a tensor moves by it times the root of its mean square (at least `eps`), and by no
more than 1 over the root of the steps taken; 1e-3 to 1e-2 are usual. Decay is apart from the gradient. There is no momentum.

Source: Shazeer and Stern 2018, arXiv:1804.04235.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import Field

from multitune.core import catalog

READS: tuple[str, ...] = ()
DECAY: Literal["coupled", "decoupled"] = "decoupled"
STATE = "mean squares of rows and columns in fp32"


class Options(catalog.Options):
    """How it remembers and what it cuts."""

    beta2_decay: float = Field(default=-0.8, lt=0, description="the share of the old in step t is 1 - t to this power")
    threshold: float = Field(default=1.0, ge=1, description="largest root mean square of an update before the rate")
    eps: float = Field(default=1e-3, gt=0, description="least root mean square of a tensor for its step")


def build(options: Options, groups: list[dict[str, Any]], *, betas: tuple[float, float], eps: float) -> torch.optim.Optimizer:
    """The optimizer of these groups; it has no use for betas and eps of the recipe."""
    return torch.optim.Adafactor(groups, lr=0.0, beta2_decay=options.beta2_decay, d=options.threshold, eps=(None, options.eps))


def state_bytes(options: Options, shape: tuple[int, ...]) -> int:
    """Bytes of the state of a tensor: of a matrix, one number for each row and each column."""
    size = torch.Size(shape).numel()
    return 4 * (size // shape[-1] + size // shape[-2]) if len(shape) > 1 else 4 * size
