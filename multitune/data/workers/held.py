"""The micro-batches of one step: in memory while they are small together, beyond that in a file, read again whenever one is asked for.

A loss over pairs needs every micro-batch twice, and a step may have any number of them. So their inputs beyond a number of bytes leave
memory for a file without a name, which every step writes over and which ends with the process, however that ends. What comes back has the
same bits and the same strides.
"""

from __future__ import annotations

import errno
import shutil
import tempfile
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from io import FileIO
from pathlib import Path
from typing import Any, overload

import torch
from torch import Tensor

from multitune.core.errors import Fault
from multitune.core.protocols import Batch
from multitune.data.workers.work import Made

STEP_BYTES = 8 << 20  # of the inputs of a step that stay in memory; the first micro-batch always does
LEAST_BYTES = 1 << 12  # of a tensor that is worth a place in the file
RESERVE_BYTES = 1 << 30  # of the disk that the file leaves free: checkpoints and shards are written there too

Numbered = tuple[int, Batch]
Change = Callable[[Batch], Batch]


@dataclass(frozen=True)
class Away:
    """A tensor in the file. step: which step wrote it."""

    step: int
    start: int
    num_bytes: int
    dtype: torch.dtype
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class Spill:
    """A file without a name, made when it is first written to. It leaves `RESERVE_BYTES` of its disk free.

    Where the disk has no room or does not take it, nothing is put away from then on, and its memory on the disk is given back.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._step, self._end, self._size = folder, 0, 0, 0
        self._file: FileIO | None = None
        self._takes = True

    def begin(self) -> None:
        """The next step; what the last one put away is gone."""
        self._step, self._end = self._step + 1, 0
        if not self._takes:
            self._cut()

    def put(self, tensor: Tensor) -> Away | None:
        """Put a tensor away; None where it is small, not a block of memory of its own, or the disk does not take it."""
        if not self._takes or tensor.nbytes < LEAST_BYTES or not _dense(tensor):
            return None
        content = _bytes(tensor.as_strided((tensor.numel(),), (1,)).view(torch.uint8))
        try:
            file, done = self._open(), 0
            self._takes = shutil.disk_usage(self._folder).free - max(0, self._end + len(content) - self._size) >= RESERVE_BYTES
            file.seek(self._end)
            while self._takes and done < len(content):
                done += file.write(content[done:])
        except OSError:
            self._takes = False
        if not self._takes:
            self._cut()
            return None
        start, self._end = self._end, self._end + len(content)
        self._size = max(self._size, self._end)
        return Away(self._step, start, len(content), tensor.dtype, tuple(tensor.shape), tensor.stride())

    def get(self, away: Away) -> Tensor:
        """The tensor as it was."""
        if away.step != self._step:
            raise RuntimeError("the rows of a step are there until the next is asked for")
        flat = torch.empty(away.num_bytes, dtype=torch.uint8)
        content, done, file = _bytes(flat), 0, self._open()
        try:
            file.seek(away.start)
            while done < away.num_bytes:
                read = file.readinto(content[done:])
                if not read:
                    raise OSError(errno.EIO, "the file is too short")
                done += read
        except OSError as error:
            raise Fault(f"{self._folder}: rows that were put away for the step cannot be read again ({error.strerror})") from None
        return flat.view(away.dtype).as_strided(away.shape, away.strides)

    def _cut(self) -> None:
        """Give back what lies behind the step's last row."""
        self._size = self._end
        with suppress(OSError):
            if self._file is not None:
                self._file.truncate(self._end)

    def _open(self) -> FileIO:
        if self._file is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._file = tempfile.TemporaryFile(dir=self._folder, buffering=0)  # noqa: SIM115 (closed with this object)
            weakref.finalize(self, self._file.close)
        return self._file


@dataclass(frozen=True)
class Place:
    """A micro-batch: all of it that is in memory, and what of its inputs is away."""

    number: int
    light: Batch
    away: Mapping[str, Mapping[str, Away]] = field(default_factory=dict[str, Mapping[str, Away]])


class Held(Sequence[Numbered]):
    """The micro-batches of a step, some of them in a file: each is made when it is asked for. changes: what is done to it then."""

    def __init__(self, places: Sequence[Place], spill: Spill, changes: tuple[Change, ...] = ()) -> None:
        self._places, self._spill, self._changes = places, spill, changes
        self.light = tuple((place.number, _through(changes, replace(place.light, inputs={}))) for place in places)

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, place: int) -> Numbered: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Numbered]: ...
    def __getitem__(self, place: int | slice) -> Numbered | Sequence[Numbered]:
        if isinstance(place, slice):
            return Held(self._places[place], self._spill, self._changes)
        found = self._places[place]
        inputs = {part: dict(tensors) for part, tensors in found.light.inputs.items()}
        for part, tensors in found.away.items():
            inputs[part] |= {name: self._spill.get(away) for name, away in tensors.items()}
        return found.number, _through(self._changes, replace(found.light, inputs=inputs))

    def changed(self, change: Change) -> Held:
        """The same, each micro-batch changed when it is asked for."""
        return Held(self._places, self._spill, (*self._changes, change))


class Shelf:
    """Takes the micro-batches of a step one after the other; the first, and what fits into `limit` bytes, stays in memory."""

    def __init__(self, spill: Spill, limit: int) -> None:
        self._spill, self._limit, self._bytes = spill, limit, 0
        self._places: list[Place] = []
        spill.begin()

    def put(self, number: int, made: Made) -> Made:
        """Take what was made, of which there may be no batch; gives the rest of it."""
        if made.batch is not None:
            size = sum(tensor.nbytes for tensors in made.batch.inputs.values() for tensor in tensors.values() if _dense(tensor))
            stays = not self._places or self._bytes + size <= self._limit
            self._bytes += size if stays else 0
            self._places.append(Place(number, made.batch) if stays else self._put_away(number, made.batch))
        return replace(made, batch=None)

    def micro(self) -> Sequence[Numbered]:
        """The step's micro-batches: a tuple where all are in memory."""
        if any(place.away for place in self._places):
            return Held(self._places, self._spill)
        return tuple((place.number, place.light) for place in self._places)

    def _put_away(self, number: int, batch: Batch) -> Place:
        away: dict[str, dict[str, Away]] = {}
        stay: dict[str, dict[str, Tensor]] = {}
        for part, tensors in batch.inputs.items():
            put = {name: self._spill.put(tensor) for name, tensor in tensors.items()}
            away[part] = {name: found for name, found in put.items() if found is not None}
            stay[part] = {name: tensor for name, tensor in tensors.items() if put[name] is None}
        return Place(number, replace(batch, inputs=stay), {part: found for part, found in away.items() if found})


def lights(micro: Sequence[Numbered]) -> Sequence[Numbered]:
    """The micro-batches with all that is not input (ids, answers, presence, contents), without reading any."""
    return micro.light if isinstance(micro, Held) else micro


def changed(micro: Sequence[Numbered], change: Change) -> Sequence[Numbered]:
    """The micro-batches changed: those in memory now, others when they are asked for."""
    return micro.changed(change) if isinstance(micro, Held) else tuple((number, change(batch)) for number, batch in micro)


def _through(changes: Sequence[Change], batch: Batch) -> Batch:
    for change in changes:
        batch = change(batch)
    return batch


def _dense(tensor: Tensor) -> bool:
    """Whether a tensor is all of a block of the machine's memory, in whatever order: no view of a part, no number in several places."""
    whole = int(tensor.untyped_storage().nbytes()) == tensor.nbytes
    return tensor.device.type == "cpu" and whole and not tensor.storage_offset()


def _bytes(flat: Tensor) -> memoryview:
    """The memory of a tensor of bytes, to be read and written in place."""
    array: Any = flat.numpy()
    return memoryview(array)
