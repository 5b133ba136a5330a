"""What a part holds, as a hash: equal for equal content, wherever it lies; a file that was read once is known by its stamp."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from multitune.core import store
from multitune.core.errors import WriteFault
from multitune.core.protocols import Media, Part, Sound
from multitune.core.rundir import write_atomic
from multitune.data.decode import BadPart, View, modality, opened, read_as
from multitune.data.sample import file_key

FRESH_NANOSECONDS = 2_000_000_000  # a file may change again within one tick of its time stamp
HEX = 64


class Contents:
    """The hashes of parts' contents; those of files are remembered by path, size, time stamp and inode, in a folder if one is given."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._known: dict[str, str] = {} if folder is None else {key: digest for digest, key in remembered(folder)}
        self._new: dict[str, str] = {}

    def of(self, part: Part) -> str:
        """The sha256 (hex) of a part's content; empty where it cannot be read."""
        value = part.value
        if isinstance(value, View):
            source = self.of(value.of)
            return hashlib.sha256(f"{source}|{value.name}".encode()).hexdigest() if source else ""
        if not isinstance(value, Media):
            return _of_value(part)
        if value.data is not None:
            found = hashlib.sha256(value.data).hexdigest()
        else:
            found = self._known.get(value.key) or self._read(value, modality(part.modality).max_bytes)
        if not found or not (part.options or part.span):
            return found
        return hashlib.sha256(f"{found}|{read_as(part)}|{part.span}".encode()).hexdigest()  # what else decides what is decoded of it

    def sure(self, part: Part) -> bool:
        """Whether a part's content is settled by its stamp, if it has one: no file that may have changed again without showing it."""
        media = _media(part)
        return media is None or media.path is None or media.key in self._known

    def flush(self) -> None:
        """Write down what was read since the last time, where the machine takes it; else the files are read again in another run."""
        if self._new and self._folder is not None:
            lines = "".join(f"{digest} {json.dumps(key)}\n" for key, digest in sorted(self._new.items())).encode()
            self._new = {}
            with suppress(WriteFault):
                write_atomic(self._folder / f"{hashlib.sha256(lines).hexdigest()[:40]}.txt", lines)

    def _read(self, media: Media, max_bytes: int) -> str:
        try:
            status = os.stat(media.path) if media.path is not None else None
            if media.path is None or status is None or not stat.S_ISREG(status.st_mode) or status.st_size > max_bytes:
                return ""
            found = store.hash_file(media.path)
        except OSError:
            return ""
        if not unchanged(media):
            return ""
        if time.time_ns() - max(status.st_mtime_ns, status.st_ctime_ns) > FRESH_NANOSECONDS:
            self._known[media.key] = self._new[media.key] = found
        return found


def unchanged(media: Media) -> bool:
    """Whether a file has still the stamp that its key names."""
    return media.path is None or file_key(str(media.path)) == media.key


def settled(part: Part) -> bool:
    """Whether the file of a part, if it has one, is still what it was when it was named."""
    media = _media(part)
    return media is None or unchanged(media)


def _media(part: Part) -> Media | None:
    value = part.value.of.value if isinstance(part.value, View) else part.value
    return value if isinstance(value, Media) else None


def remembered(folder: Path) -> Iterator[tuple[str, str]]:
    """Digest and key of every file that was read once; what is not whole, or cannot be read, is passed over."""
    for path in sorted(folder.glob("*.txt")):
        yield from whole(lines_of(path))


def lines_of(path: Path) -> list[str]:
    """The lines of a file of remembered contents, with their ends; none where it is another user's alone, or was removed meanwhile."""
    try:
        return path.read_text("utf-8", errors="replace").splitlines(keepends=True)
    except OSError:
        return []


def whole(lines: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Digest and key of each line that is whole."""
    for line in lines:
        digest, _, key = line.partition(" ")
        try:
            found = json.loads(key)
        except ValueError:
            continue
        if len(digest) == HEX and isinstance(found, str):
            yield digest, found


def _of_value(part: Part) -> str:
    try:
        value = opened(part).value
    except BadPart:
        return ""
    digest = hashlib.sha256(part.modality.encode())
    for piece in _pieces(value):
        digest.update(piece)
    return digest.hexdigest()


def _pieces(value: Any) -> Iterator[bytes]:
    if isinstance(value, Sound):
        yield str(value.rate).encode()
        yield from _pieces(value.wave)
    elif isinstance(value, np.ndarray):
        yield f"{value.dtype.str}{value.shape}".encode()
        yield np.ascontiguousarray(value).tobytes()
    else:
        yield store.canonical(value).encode()
