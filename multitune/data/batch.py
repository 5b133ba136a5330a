"""What a family's `collate` is made of: rows padded and stacked, presence masks; batches on a device; rows that are kept as prepared."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from multitune.core.protocols import Batch, Media, Sample, Sound
from multitune.core.randomness import derive
from multitune.data.sample import file_key


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


@runtime_checkable
class Repeats(Protocol):
    """A preparer that makes the same row of the same sample, whenever it is asked."""

    repeats: ClassVar[bool]


@dataclass(frozen=True)
class Ready:
    """A row as it was prepared, and its sample."""

    sample: Sample
    row: Mapping[str, Any]


@dataclass
class Kept:
    """Small rows as they were prepared, by their place: the first that fit into `max_bytes`, each as long as its files stay as they are.

    Only for rows that are the same whenever they are read. size: about how many bytes a value takes.
    """

    size: Callable[[Any], int]
    max_bytes: int = 32 << 20
    max_row_bytes: int = 1 << 18
    bytes: int = 0
    _rows: dict[int, Ready] = field(default_factory=dict[int, Ready])

    def get(self, place: int) -> Ready | None:
        """The row of a place, if it is kept and no file of its has changed."""
        found = self._rows.get(place)
        return None if found is None or any(_changed(part.value) for part in found.sample.parts.values()) else found

    def put(self, place: int, ready: Ready) -> None:
        """Keep a row, if it is small and there is room."""
        if self.bytes < self.max_bytes and place not in self._rows:
            weight = ROW_BYTES + self.size(ready.row)
            if weight <= self.max_row_bytes and self.bytes + weight <= self.max_bytes:
                self._rows[place] = ready
                self.bytes += weight


ROW_BYTES = 2048  # of a sample and its columns, about


def _changed(value: Any) -> bool:
    return isinstance(value, Media) and value.path is not None and file_key(str(value.path)) != value.key


def _moved(tensors: Mapping[str, Tensor], device: torch.device | str) -> dict[str, Tensor]:
    return {name: tensor.to(device, non_blocking=True) for name, tensor in tensors.items()}
