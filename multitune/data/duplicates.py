"""The same picture or sound in two splits: what the figures of the second would not show."""

from __future__ import annotations

import hashlib
import stat
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from multitune.core.errors import DataError
from multitune.core.finding import Finding, Severity
from multitune.core.protocols import Media, Split
from multitune.data.decode import modality
from multitune.data.split import Examples

MAX_FILES = 20_000
MAX_BYTES = 512 << 20  # read before training; beyond it nothing is compared, and the finding says so


HEAD_BYTES = 4096


@dataclass(frozen=True)
class _File:
    """A medium of a row, without its bytes: a file, or the digests of the beginning and of all of what came with the row."""

    split: Split
    id: str
    size: int
    path: Path | None = None
    head: str = ""
    whole: str = ""


def over_splits(examples: Mapping[Split, Examples]) -> Iterator[Finding]:
    """A finding for each part of which equal files are in several splits; only files of equal size and beginning are read whole."""
    parts = [name for name, spec in examples["train"].parts.items() if modality(spec.modality, spec.options).media]
    if not parts:
        return
    if sum(len(rows) for rows in examples.values()) * len(parts) > MAX_FILES:
        yield _skipped(parts[0], f"more than {MAX_FILES:,} files")
        return
    files: dict[str, list[_File]] = {name: [] for name in parts}
    for part, file in _files(examples, parts):
        files[part].append(file)
    for part, found in files.items():
        alike = _shared(_shared([found], lambda file: file.size), lambda file: _content(file, HEAD_BYTES))
        if sum(file.size for group in alike for file in group if file.path is not None) > MAX_BYTES:
            yield _skipped(part, f"more than {MAX_BYTES >> 20} MB")
        else:
            yield from _equal(part, _shared(alike, lambda file: _content(file, -1)))


def _files(examples: Mapping[Split, Examples], parts: Sequence[str]) -> Iterator[tuple[str, _File]]:
    for split, rows in examples.items():
        for index in range(len(rows)):
            try:
                found = rows.sample(index).parts
            except DataError:  # the loader quarantines it
                continue
            for part in parts:
                media = found[part].value if part in found else None
                if not isinstance(media, Media):
                    continue
                if (file := _file(split, rows.ids[index], media)) is not None:
                    yield part, file


def _file(split: Split, row_id: str, media: Media) -> _File | None:
    """The medium as something to compare; None where it is no file, which the loader finds out too."""
    if media.data is not None:
        return _File(split, row_id, len(media.data), head=_digest(media.data[:HEAD_BYTES]), whole=_digest(media.data))
    if media.path is None:
        return None
    try:
        status = media.path.stat()
    except OSError:
        return None
    return _File(split, row_id, status.st_size, media.path) if stat.S_ISREG(status.st_mode) else None


def _shared(groups: Iterable[list[_File]], key: Callable[[_File], Any]) -> list[list[_File]]:
    """Each group parted by a key; of the smaller groups, those that lie in several splits."""
    made: list[list[_File]] = []
    for group in groups:
        parted: dict[Any, list[_File]] = defaultdict(list)
        for file in group:
            parted[key(file)].append(file)
        made += [alike for alike in parted.values() if len({file.split for file in alike}) > 1]
    return made


def _content(file: _File, size: int) -> str:
    """A digest of the first bytes, or of all for -1; of a file that cannot be read, its own path: it equals nothing."""
    if file.path is None:
        return file.whole if size < 0 else file.head
    try:
        with file.path.open("rb", buffering=0) as stream:
            return _digest(stream.read(size))
    except OSError:
        return str(file.path)


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def _equal(part: str, groups: Sequence[list[_File]]) -> Iterator[Finding]:
    pairs = [(group[0], file) for group in groups for file in group[1:] if file.split != group[0].split]
    if pairs:
        one, other = pairs[0]
        found = f"{len(pairs)} files are also in another split, such as {one.id} ({one.split}) = {other.id} ({other.split})."
        remedy = "Group such rows by data.split.group, or remove them."
        yield Finding("duplicate-over-splits", Severity.WARNING, f"data.parts.{part}", found, remedy, {"files": len(pairs)})


def _skipped(part: str, why: str) -> Finding:
    return Finding("duplicates-not-sought", Severity.INFO, f"data.parts.{part}", f"equal files were not sought in the splits: {why}.")
