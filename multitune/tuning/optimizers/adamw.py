"""AdamW: two moments of the gradient, decay apart from it. The default, and the choice for transformers.

Fused where the device has it, else foreach.

Source: Loshchilov and Hutter 2019, arXiv:1711.05101.
"""

from __future__ import annotations

from typing import Any, Literal

import torch

from multitune.core import catalog

READS = ("betas", "eps")
DECAY: Literal["coupled", "decoupled"] = "decoupled"
STATE = "two moments in fp32"


class Options(catalog.Options):
    """No options; `train.betas` and `train.eps` are its own."""


def build(options: Options, groups: list[dict[str, Any]], *, betas: tuple[float, float], eps: float) -> torch.optim.Optimizer:
    """The optimizer of these groups."""
    try:
        return torch.optim.AdamW(groups, lr=0.0, betas=betas, eps=eps, fused=True)
    except RuntimeError:  # a device or dtype without the fused kernel
        return torch.optim.AdamW(groups, lr=0.0, betas=betas, eps=eps, foreach=True)


def state_bytes(options: Options, shape: tuple[int, ...]) -> int:
    """Bytes of the state of a tensor."""
    return 8 * torch.Size(shape).numel()
