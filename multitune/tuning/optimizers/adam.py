"""Adam: two moments of the gradient; weight decay is part of the gradient, so it is divided by them too.

What older papers and scripts mean by Adam with weight decay. Where nothing is to be reproduced, adamw is the better choice.

Source: Kingma and Ba 2015, arXiv:1412.6980.
"""

from __future__ import annotations

from typing import Any, Literal

import torch

from multitune.core import catalog

READS = ("betas", "eps")
DECAY: Literal["coupled", "decoupled"] = "coupled"
STATE = "two moments in fp32"


class Options(catalog.Options):
    """No options; `train.betas` and `train.eps` are its own."""


def build(options: Options, groups: list[dict[str, Any]], *, betas: tuple[float, float], eps: float) -> torch.optim.Optimizer:
    """The optimizer of these groups."""
    try:
        return torch.optim.Adam(groups, lr=0.0, betas=betas, eps=eps, fused=True)
    except RuntimeError:  # a device or dtype without the fused kernel
        return torch.optim.Adam(groups, lr=0.0, betas=betas, eps=eps, foreach=True)


def state_bytes(options: Options, shape: tuple[int, ...]) -> int:
    """Bytes of the state of a tensor."""
    return 8 * torch.Size(shape).numel()
