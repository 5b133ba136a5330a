"""AdamW whose two moments are kept in 8 bits, in blocks of 256 numbers, by bitsandbytes: a quarter of the memory.

Needs bitsandbytes (`pip install bitsandbytes`) and a device that it serves. Tensors of fewer than 4,096 numbers keep theirs in fp32.

Source: Dettmers et al. 2022, arXiv:2110.02861.
"""

from __future__ import annotations

import importlib.util
from typing import Any, Literal

import torch

from multitune.core import catalog
from multitune.core.errors import RecipeError

READS = ("betas", "eps")
DECAY: Literal["coupled", "decoupled"] = "decoupled"
STATE = "two moments in 8 bits"
SMALL, BLOCK = 4096, 256


class Options(catalog.Options):
    """No options; `train.betas` and `train.eps` are its own."""


def check(options: Options) -> None:
    """Refuse it where it cannot be built.

    Raises: RecipeError where bitsandbytes is not installed.
    """
    if importlib.util.find_spec("bitsandbytes") is None:
        remedy = "Install it (pip install bitsandbytes), or choose adafactor, which needs even less memory."
        raise RecipeError("train.optimizer", "adamw_8bit needs bitsandbytes, which is not installed.", remedy)


def build(options: Options, groups: list[dict[str, Any]], *, betas: tuple[float, float], eps: float) -> torch.optim.Optimizer:
    """The optimizer of these groups.

    Raises: RecipeError where bitsandbytes is not installed.
    """
    check(options)
    import bitsandbytes  # pyright: ignore[reportMissingImports]

    made: torch.optim.Optimizer = bitsandbytes.optim.AdamW8bit(groups, lr=0.0, betas=betas, eps=eps, min_8bit_size=SMALL)
    return made


def state_bytes(options: Options, shape: tuple[int, ...]) -> int:
    """Bytes of the state of a tensor: two moments, and the largest number of each block of both."""
    size = torch.Size(shape).numel()
    return 8 * size if size < SMALL else 2 * size + 8 * -(-size // BLOCK)
