"""Activation checkpointing: what the blocks of towers hold for the way back is computed again, in place of kept.

Transformers' own where a tower has it, torch's around each block where it has none. Both put the generator back to where the block
began, so dropout repeats itself and the gradient is the same to the bit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, cast

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from multitune.models.anatomy import block_paths


def recompute(towers: Mapping[str, Any]) -> list[str]:
    """Have the blocks of these towers computed again in training; gives the names of towers that have no blocks to do it with."""
    return [name for name, tower in towers.items() if not _of(cast("PreTrainedModel", tower))]


def _of(tower: PreTrainedModel) -> bool:
    if tower.supports_gradient_checkpointing:
        try:
            tower.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
            return True
        except ValueError:  # the class says that it can, and none of its modules does
            pass
    blocks = [tower.get_submodule(path) for path in block_paths(tower)]
    for block in blocks:
        block.forward = partial(_again, block, block.forward)
    return bool(blocks)


def around(own: Callable[..., Any], forward: Callable[..., Any]) -> Callable[..., Any] | None:
    """`forward` computed again as a block's own forward is; None where that is none of ours."""
    if isinstance(own, partial) and own.func is _again:
        return partial(_again, own.args[0], forward)
    return None


def _again(block: nn.Module, forward: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    if block.training and torch.is_grad_enabled():
        return checkpoint(forward, *arguments, use_reentrant=False, **named)
    return forward(*arguments, **named)
