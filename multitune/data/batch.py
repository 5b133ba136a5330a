"""What a family's `collate` is made of: rows padded and stacked, presence masks, batches moved to a device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from multitune.core.protocols import Batch


def pad(rows: Sequence[Tensor], *, value: float, length: int = 0, multiple: int = 1) -> Tensor:
    """Rows (length_i, ...) as one tensor (rows, longest, ...), filled up behind with `value`.

    length: at least this long. multiple: the longest is rounded up to one, so that shapes repeat.
    """
    longest = max(length, *(len(row) for row in rows)) if rows else length
    longest = -(-longest // multiple) * multiple
    padded = rows[0].new_full((len(rows), longest, *rows[0].shape[1:]), value)
    for number, row in enumerate(rows):
        padded[number, : len(row)] = row
    return padded


def presence(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> dict[str, Tensor]:
    """For each name, which rows have it: bool (rows,)."""
    return {name: torch.tensor([row.get(name) is not None for row in rows], dtype=torch.bool) for name in names}


def to(batch: Batch, device: torch.device | str) -> Batch:
    """The batch with all its tensors on a device."""
    return replace(
        batch,
        inputs={part: _moved(tensors, device) for part, tensors in batch.inputs.items()},
        answers=_moved(batch.answers, device),
        presence=_moved(batch.presence, device),
        teacher=_moved(batch.teacher, device),
    )


def _moved(tensors: Mapping[str, Tensor], device: torch.device | str) -> dict[str, Tensor]:
    return {name: tensor.to(device, non_blocking=True) for name, tensor in tensors.items()}
