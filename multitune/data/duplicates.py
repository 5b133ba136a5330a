"""The same picture or sound in two splits: what the figures of the second would not show."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from multitune.core.errors import DataError
from multitune.core.finding import Finding, Severity
from multitune.core.protocols import Media, Split
from multitune.data.decode import modality
from multitune.data.split import Examples

MAX_FILES = 20_000
MAX_BYTES = 512 << 20  # read before training; beyond it nothing is compared, and the finding says so


@dataclass(frozen=True)
class _File:
    split: Split
    id: str
    media: Media
    size: int


def over_splits(examples: Mapping[Split, Examples]) -> Iterator[Finding]:
    """A finding for each part of which equal files are in several splits; only files of equal size are read."""
    train = examples["train"]
    for part, spec in train.parts.items():
        if not modality(spec.modality).media:
            continue
        if sum(len(rows) for rows in examples.values()) > MAX_FILES:
            yield _skipped(part, f"more than {MAX_FILES:,} files")
            continue
        by_size: dict[int, list[_File]] = defaultdict(list)
        for file in _files(examples, part):
            by_size[file.size].append(file)
        suspects = [alike for alike in by_size.values() if len({file.split for file in alike}) > 1]
        if sum(file.size for alike in suspects for file in alike) > MAX_BYTES:
            yield _skipped(part, f"more than {MAX_BYTES >> 20} MB")
            continue
        yield from _equal(part, suspects)


def _files(examples: Mapping[Split, Examples], part: str) -> Iterator[_File]:
    for split, rows in examples.items():
        for index in range(len(rows)):
            try:
                found = rows.sample(index).parts.get(part)
            except DataError:  # the loader quarantines it
                continue
            media = found.value if found is not None else None
            if not isinstance(media, Media):
                continue
            if media.data is not None:
                yield _File(split, rows.ids[index], media, len(media.data))
            elif media.path is not None and media.path.is_file():
                yield _File(split, rows.ids[index], media, media.path.stat().st_size)


def _equal(part: str, suspects: list[list[_File]]) -> Iterator[Finding]:
    pairs: list[tuple[_File, _File]] = []
    for alike in suspects:
        first: dict[bytes, _File] = {}
        for file in alike:
            data = file.media.data if file.media.data is not None else _read(file.media.path)
            earlier = first.setdefault(hashlib.blake2b(data, digest_size=16).digest(), file)
            if earlier.split != file.split:
                pairs.append((earlier, file))
    if pairs:
        one, other = pairs[0]
        found = f"{len(pairs)} files are also in another split, such as {one.id} ({one.split}) = {other.id} ({other.split})."
        remedy = "Group such rows by data.split.group, or remove them."
        yield Finding("duplicate-over-splits", Severity.WARNING, f"data.parts.{part}", found, remedy, {"files": len(pairs)})


def _read(path: Path | None) -> bytes:
    return path.read_bytes() if path is not None else b""


def _skipped(part: str, why: str) -> Finding:
    return Finding("duplicates-not-sought", Severity.INFO, f"data.parts.{part}", f"equal files were not sought in the splits: {why}.")
