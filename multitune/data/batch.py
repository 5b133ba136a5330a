"""What a family's `collate` is made of: rows padded and stacked, presence masks; batches on a device; rows that are kept as prepared."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from multitune.core.protocols import Batch, Media, Sample, Sound
from multitune.core.randomness import derive


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
        contents=_moved(batch.contents, device),
    )


def contents(samples: Sequence[Sample], parts: Iterable[str]) -> dict[str, Tensor]:
    """For each part the number of what each row holds there, int64 (rows,); the number of a row alone where the part is absent."""
    return {name: torch.tensor([content(sample, name) for sample in samples], dtype=torch.int64) for name in parts}


def content(sample: Sample, name: str) -> int:
    """A number that is equal for the same file, the same text or the same values, over the same seconds."""
    part = sample.parts.get(name)
    if part is None:
        return derive("absent", sample.id, name)
    value = part.value
    if isinstance(value, Media):
        said = value.key
    elif isinstance(value, str):
        said = value
    else:
        array = np.ascontiguousarray(value.wave if isinstance(value, Sound) else value)
        said = hashlib.blake2b(array.tobytes(), digest_size=16).hexdigest()
    return derive("content", part.modality, said, repr(part.span))


def _moved(tensors: Mapping[str, Tensor], device: torch.device | str) -> dict[str, Tensor]:
    return {name: tensor.to(device, non_blocking=True) for name, tensor in tensors.items()}
