"""One way from a mapping to a Sample: a row of a table, a dict given to `predict`, and later a request to a server."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

import numpy as np

from multitune.core.protocols import Media, Modality, Part, Sample, Sound
from multitune.core.recipe import PartSpec
from multitune.data.decode import BadPart, modality

SAMPLE_BYTES = 2048  # of the objects that a sample is made of, about
MAX_PATH, MAX_NAME = 4096, 255  # of a path and of each name in it; beyond them no system has a file
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://|data:")


def sample(
    mapping: Mapping[str, Any],
    parts: Mapping[str, str | PartSpec],
    *,
    id: str,
    root: Path | Mapping[str, Path | None] | None = None,
    group: str = "",
    source: str = "",
) -> Sample:
    """The sample in a mapping of columns, its media not yet opened.

    parts: name -> modality, or the recipe's spec (which may name another column). Absent parts are simply not there.
    A medium is a path (str or Path), bytes, a PIL picture, an array, a `Sound` or (wave, rate), or a dict {bytes, path} or
    {array, sampling_rate}. root: what relative paths are relative to and may not leave, one for all or by column; without it, the
    working folder.
    Text columns all stay in `columns`; the columns `start` and `end`, where both are numbers, give media their span.

    Raises: BadPart for a value that cannot be that part, such as a URL.
    """
    span = _span(mapping)
    made: dict[str, Part] = {}
    for name, spec in parts.items():
        kind, column, options = (spec, name, {}) if isinstance(spec, str) else (spec.modality, spec.column or name, spec.options)
        value = mapping.get(column)
        if is_absent(value):
            continue
        try:
            base = root.get(column) if isinstance(root, Mapping) else root
            reader = modality(kind, options)
            made[name] = (
                Part(kind, _medium(value, base), span, options) if reader.media else Part(kind, _plain(reader, value), None, options)
            )
        except ValueError as error:
            raise BadPart(name, str(error)) from None
    columns = {name: value for name, value in mapping.items() if isinstance(value, str)}
    return Sample(id=id, parts=made, group=group, source=source, columns=columns)


def is_absent(value: Any) -> bool:
    """Whether a cell holds nothing: None, or text of white space alone."""
    return value is None or (isinstance(value, str) and not value.strip())


def cell(value: Any) -> Any:
    """A cell of rows in memory as a table would hold it: plain scalars and lists of texts as text, media as they are, None where absent."""
    if isinstance(value, str):
        return value or None
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, set | frozenset):
        value = sorted(value, key=str)
    if isinstance(value, list | tuple) and all(isinstance(inner, str) for inner in value):
        return json.dumps(value, ensure_ascii=False)
    return value


def _plain(reader: Modality, value: Any) -> Any:
    return reader.decode(value if isinstance(value, bytes) else cell(value))


def _medium(value: Any, root: Path | None) -> Any:
    if isinstance(value, Mapping):
        value = _from_mapping(value)
    if isinstance(value, str | Path):
        return placed(str(value), root)
    if isinstance(value, bytes | bytearray | memoryview):
        data = bytes(value)
        return Media(key=f"bytes:{hashlib.blake2b(data, digest_size=16).hexdigest()}", data=data)
    return value


def _from_mapping(value: Mapping[str, Any]) -> Any:
    if value.get("bytes") is not None:
        return value["bytes"]
    if "array" in value and "sampling_rate" in value:
        return Sound(np.asarray(value["array"]), value["sampling_rate"])
    if value.get("path") is not None:
        return value["path"]
    raise ValueError("found a mapping without bytes, path or array")


def placed(text: str, root: Path | None) -> Media:
    """The file that a path in a row means, whether or not it is there; relative to `root`, else to the working folder.

    Raises: ValueError for what can be no path, or leaves `root`.
    """
    if _URL.match(text):
        raise ValueError("is a URL; nothing is fetched: download it and give the file's path")
    if len(text) > MAX_PATH or max(map(len, re.split(r"[\\/]", text))) > MAX_NAME:
        raise ValueError(f"is a text of {len(text):,} characters, no path of a file; give a path, or the file's bytes (base64 is not read)")
    if "\0" in text:
        raise ValueError("is a path with NUL in it")
    place = os.path.abspath(os.path.join(root, text)) if root is not None else os.path.abspath(text)
    if ".." in text and root is not None and not os.path.isabs(text) and Path(os.path.abspath(root)) not in Path(place).parents:
        raise ValueError("is a path that leaves the table's folder; give an absolute path, or move the file")
    return Media(key=file_key(place), path=Path(place))  # one that is not there is told by the decode gate


def file_key(place: str) -> str:
    """What a file on the disk is known by: its path, and its size, time stamp and inode, where it is there.

    With the time of its last change of any kind, which nobody can set back: a time stamp may be restored after a change.
    """
    try:
        status = os.stat(place)
    except (OSError, ValueError):
        return place
    return f"{place}|{status.st_size}|{status.st_mtime_ns}|{status.st_ctime_ns}|{status.st_ino}"


def is_still(sample: Sample) -> bool:
    """Whether every file of a sample has the stamp that it had when the sample was made."""
    values: list[Any] = [part.value for part in sample.parts.values()]
    return all(file_key(str(value.path)) == value.key for value in values if isinstance(value, Media) and value.path is not None)


def num_bytes(sample: Sample) -> int:
    """About how many bytes a sample takes in memory: its texts, its arrays, and what it holds of files."""
    held = {id(value): value for value in (*(part.value for part in sample.parts.values()), *sample.columns.values())}
    return SAMPLE_BYTES + sum(map(_num_bytes, held.values()))


@runtime_checkable
class _Numbers(Protocol):
    """An array."""

    @property
    def nbytes(self) -> int: ...


def _num_bytes(value: Any) -> int:
    if isinstance(value, Media):
        return len(value.data or b"")
    if isinstance(value, str | bytes):
        return len(value)
    if isinstance(value, Sound | _Numbers):
        return value.wave.nbytes if isinstance(value, Sound) else int(value.nbytes)
    return sum(map(_num_bytes, cast("list[Any]", value))) if isinstance(value, list | tuple) else 0


def without_bytes(sample: Sample) -> Sample:
    """The sample without the bytes that it holds of files: it still says which they are, and none of them can be opened."""
    held = {name: part.value for name, part in sample.parts.items() if isinstance(part.value, Media) and part.value.data is not None}
    light = {name: replace(sample.parts[name], value=replace(media, data=None)) for name, media in held.items()}
    return replace(sample, parts={**sample.parts, **light}) if light else sample


def _span(mapping: Mapping[str, Any]) -> tuple[float, float] | None:
    if "start" not in mapping or "end" not in mapping:
        return None
    numbers = modality("number")
    try:
        start, end = numbers.decode(cell(mapping["start"])), numbers.decode(cell(mapping["end"]))
    except ValueError:
        return None
    return (start, end) if start <= end else None
