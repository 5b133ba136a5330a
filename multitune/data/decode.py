"""The one decode gate: whatever a model is to see passes here, for check, train, evaluate, predict and serve alike.

A medium is a regular file or bytes, no larger than its modality allows, of a format that its first bytes prove. What comes
out is a decoded part or a `BadPart`; never something half decoded, and never a word about where the machine keeps its files.
"""

from __future__ import annotations

import functools
import io
import json
import os
import re
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Protocol, runtime_checkable

from multitune.core import catalog
from multitune.core.errors import DataError
from multitune.core.protocols import Media, Modality, Part, Sample

NONE: Mapping[str, Any] = MappingProxyType({})
_LEAKS = re.compile(r"<[^<>]*>|0x[0-9a-fA-F]{4,}|(?<![\w.])/(?:[^\s'\"]+/)+[^\s'\"]*")


@runtime_checkable
class MeasuredModality(Modality, Protocol):
    """A modality whose values differ in size, which can be told before they are decoded."""

    def measure(self, value: Any) -> tuple[int, ...]:
        """Of an open file, by its header, or of a decoded value: samples and rate of a sound, frames of a film. Raises: ValueError."""
        ...


class BadPart(DataError):
    """A part that cannot be used: `part` is its name where that is known, else its modality; `cause` says why."""

    def __init__(self, part: str, cause: str, at: Part | None = None) -> None:
        self.part, self.cause, self._at = part, _LEAKS.sub("...", cause)[:300], at
        super().__init__(part, f"{self.cause}.")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.part, self.cause)

    def named(self, sample: Sample) -> BadPart:
        """The same with the part's name in its sample, where it is one of the sample's."""
        found = (name for name, part in sample.parts.items() if part is self._at)
        return BadPart(next(found, self.part), self.cause)


def modality(name: str, options: Mapping[str, Any] = NONE) -> Modality:
    """The modality of that name, with the options of a part's spec; without them, with its defaults.

    Raises: PluginError if there is none, or it does not take them.
    """
    return _built(name, json.dumps(dict(options), sort_keys=True) if options else "{}")


def read_as(part: Part) -> str:
    """Its modality with its options: what is remembered of a file under one must not be met under another."""
    return f"{part.modality}{json.dumps(dict(part.options), sort_keys=True)}" if part.options else part.modality


@functools.cache
def _built(name: str, options: str) -> Modality:
    return catalog.find("modality", name, json.loads(options)).build()


@dataclass(frozen=True)
class View:
    """The value of a part that is one of a fixed number of views of another, made when it is opened. name: equal for equal views."""

    of: Part
    name: str
    make: Callable[[], Any] = field(compare=False)


def opened(part: Part) -> Part:
    """The part decoded and checked; a part that is decoded already is checked the same way.

    Raises: BadPart with the cause, and the modality for a name: a part does not know its own.
    """
    kind = modality(part.modality, part.options)
    given = part.value.make() if isinstance(part.value, View) else part.value
    try:
        value = kind.decode(_bytes(given, kind) if isinstance(given, Media) else given)
    except (ValueError, OSError) as error:
        raise BadPart(part.modality, _cause(error), part) from None
    return replace(part, value=value)


def unreadable(sample: Sample) -> BadPart | None:
    """The first of a sample's parts that cannot be decoded; None where all can."""
    for name, part in sample.parts.items():
        try:
            opened(part)
        except BadPart as error:
            return BadPart(name, error.cause)
    return None


def measured(part: Part) -> tuple[int, ...] | None:
    """The size of a part as its modality's `measure` gives it, of a file from its header alone; None where it is not known."""
    kind, value = modality(part.modality, part.options), part.value
    if not isinstance(kind, MeasuredModality):
        return None
    try:
        if not isinstance(value, Media):
            return kind.measure(kind.decode(value))
        if value.data is not None:
            return kind.measure(io.BytesIO(value.data))
        if value.path is None or not stat.S_ISREG(os.stat(value.path).st_mode):
            return None
        with value.path.open("rb") as stream:
            return kind.measure(stream)
    except (ValueError, OSError):  # the gate says what is wrong with it when it is opened
        return None


def _bytes(media: Media, kind: Modality) -> bytes:
    if not kind.magic:
        raise ValueError(f"is a file; {kind.name} is taken from memory only")
    data = media.data if media.data is not None else _read(media, kind.max_bytes)
    if len(data) > kind.max_bytes:
        raise ValueError(f"is {len(data):,} bytes; at most {kind.max_bytes:,} are taken")
    if not data:
        raise ValueError("is empty (0 bytes)")
    if not any(all(data[at : at + len(magic)] == magic for at, magic in marks) for marks in kind.magic.values()):
        raise ValueError(f"is none of {', '.join(kind.magic)} (it begins with {data[:8]!r})")
    return data


def _read(media: Media, max_bytes: int) -> bytes:
    if media.path is None:
        raise ValueError("has neither file nor bytes")
    status = os.stat(media.path)  # before open: opening a pipe or a device would wait for it
    if not stat.S_ISREG(status.st_mode):
        raise ValueError(f"{media.path.name} is not a regular file")
    if status.st_size > max_bytes:
        raise ValueError(f"{media.path.name} is {status.st_size:,} bytes; at most {max_bytes:,} are taken")
    with open(media.path, "rb", buffering=0) as stream:
        return stream.read(max_bytes + 1) or b""


def _cause(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return f"there is no file {os.path.basename(str(error.filename))}"
    if isinstance(error, OSError) and error.strerror:
        return f"{os.path.basename(str(error.filename or 'the file'))} cannot be read ({error.strerror})"
    return str(error)
