"""What is remembered of rows within one process: what was made for a key, and small rows as they were prepared."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
import torch

from multitune.core.protocols import Sample
from multitune.data.sample import SAMPLE_BYTES, is_still, num_bytes, without_bytes


class Memo:
    """Remembers what was made for a key, the least lately used forgotten first, within `max_bytes`. What it gives is not to be changed."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes, self.bytes = max_bytes, 0
        self._kept: OrderedDict[str, tuple[Any, int]] = OrderedDict()

    def get(self, key: str, make: Callable[[], Any]) -> Any:
        """What is remembered for the key, else what `make` gives."""
        found = self._kept.get(key)
        if found is not None:
            self._kept.move_to_end(key)
            return found[0]
        value = make()
        size = _size(value)
        if size <= self.max_bytes:
            self._kept[key] = (value, size)
            self.bytes += size
            while self.bytes > self.max_bytes:
                self.bytes -= self._kept.popitem(last=False)[1][1]
        return value


def _size(value: Any) -> int:
    """About how many bytes a value takes."""
    if isinstance(value, str | bytes):
        return 64 + len(value)
    if isinstance(value, Mapping):
        return 128 + sum(_size(inner) for inner in value.values())
    if isinstance(value, list | tuple):
        return 64 + sum(_size(inner) for inner in value)
    if isinstance(value, np.ndarray | torch.Tensor):
        strides = value.strides if isinstance(value, np.ndarray) else value.stride()
        return 128 + (value.nbytes if any(strides) else 0)
    return 64 + sum(_size(inner) for inner in vars(value).values()) if hasattr(value, "__dict__") else 64


@runtime_checkable
class Repeats(Protocol):
    """A preparer that makes the same row of the same sample, whenever it is asked."""

    repeats: ClassVar[bool]


@dataclass(frozen=True)
class Ready:
    """A row as it was prepared, and its sample, of which nothing is opened any more."""

    sample: Sample
    row: Mapping[str, Any]


@dataclass
class Kept:
    """Small rows as they were prepared: the first that fit into `max_bytes`, each as long as its files stay as they are.

    Only for rows that are the same whenever they are read; a key is a row's place and its view. shared: what samples hold is in memory
    anyway, as it is of rows in memory. What a sample holds of files is not kept with it.
    """

    shared: bool = False
    max_bytes: int = 32 << 20
    max_row_bytes: int = 1 << 18
    bytes: int = 0
    _rows: dict[Hashable, Ready] = field(default_factory=dict[Hashable, Ready])

    def get(self, key: Hashable) -> Ready | None:
        """The row of a key, if it is kept and no file of its has changed."""
        found = self._rows.get(key)
        return found if found is not None and is_still(found.sample) else None

    def put(self, key: Hashable, ready: Ready) -> None:
        """Keep a row, if it is small and there is room."""
        if self.bytes < self.max_bytes and key not in self._rows:
            light = Ready(without_bytes(ready.sample), ready.row)
            weight = (SAMPLE_BYTES if self.shared else num_bytes(light.sample)) + _size(ready.row)
            if weight <= self.max_row_bytes and self.bytes + weight <= self.max_bytes:
                self._rows[key] = light
                self.bytes += weight
