"""A store as a whole: what it holds, whether it still holds, and how it is made smaller."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from multitune.core import store
from multitune.core.errors import writing
from multitune.core.finding import Finding, Severity
from multitune.core.rundir import write_atomic
from multitune.data.sample import file_key
from multitune.models.features.contents import lines_of, whole
from multitune.models.features.shards import ABOUT, DAMAGED, SUFFIX, Space, spaces, told

MEDIA = "media"
STALE_SECONDS = 3600.0  # after which a draft is nobody's


@dataclass(frozen=True)
class Held:
    """What a store holds of one cut. used: when a run last opened it, in seconds since 1970."""

    folder: Path
    tower: str
    cut: str
    type: str
    rows: int
    bytes: int
    shards: int
    used: float


@dataclass(frozen=True)
class Pruned:
    """What was taken away, and what is left."""

    shards: int
    bytes: int
    left: int


def root_of(stated: str) -> Path:
    """A store's folder: the one that is stated, else `features` in the cache."""
    return Path(stated).expanduser() if stated else store.cache_root() / "features"


def held(root: Path) -> list[Held]:
    """What a store holds, what was used last first."""
    return sorted((_held(folder) for folder in spaces(root)), key=lambda one: (-one.used, one.folder.name))


def _held(folder: Path) -> Held:
    facts = told(folder)
    key = facts.get("key")
    kind = str(key.get("type", "")) if isinstance(key, Mapping) else ""
    space = Space(folder)
    space.look(verify=False)
    files = [*folder.glob(f"*{SUFFIX}")]
    size = sum(_size(path) for path in files)
    return Held(folder, str(facts.get("tower", "")), str(facts.get("cut", "")), kind, len(space), size, len(files), _used(folder))


def used(folder: Path) -> None:
    """Note that a run reads a space; one that may not be written is read all the same."""
    try:
        os.utime(folder / ABOUT)
    except OSError:
        return


def verify(root: Path) -> Iterator[Finding]:
    """Hash every shard, and read every file again whose content is remembered; what does not hold is set aside or forgotten, and told."""
    for folder in spaces(root):
        yield from Space(folder).look(verify=True)
    for path in sorted((root / MEDIA).glob("*.txt")):
        yield from _forgotten(path)


def _forgotten(path: Path) -> Iterator[Finding]:
    """Of one file of remembered contents, the lines that no longer hold; they are taken out of it."""
    lines = lines_of(path)
    wrong = {digest for digest, key in whole(lines) if not _is_still(digest, key)}
    kept = [line for line in lines if line.partition(" ")[0] not in wrong]
    if len(kept) < len(lines):
        write_atomic(path, "".join(kept).encode())
        yield Finding(
            "content-forgotten",
            Severity.WARNING,
            str(path),
            f"{len(lines) - len(kept)} files changed though their size and time stamp did not.",
            "They are read anew; features of what they held before are not used for them.",
        )


def _is_still(digest: str, key: str) -> bool:
    """Whether a file that has the remembered stamp has the remembered content; one that is gone or has another stamp says nothing."""
    place = key.rsplit("|", 4)[0]
    if key != file_key(place):
        return True
    try:
        return store.hash_file(Path(place)) == digest
    except OSError:
        return True


def prune(root: Path, most: int) -> Pruned:
    """Take away what is damaged, drafts that nobody writes any more, and then what was used longest ago, until `most` bytes are left.

    Raises: Fault if a file cannot be taken away.
    """
    gone = [path for path in root.glob("*/*") if path.name.endswith(DAMAGED) or (".tmp-" in path.name and _is_stale(path))]
    shards = [path for one in sorted(held(root), key=lambda one: one.used) for path in sorted(one.folder.glob(f"*{SUFFIX}"), key=_age)]
    total = sum(map(_size, shards))
    for path in shards:
        if total <= most:
            break
        gone.append(path)
        total -= _size(path)
    taken = sum(map(_size, gone))
    for path in gone:
        with writing(path, "Take it away by hand."):
            path.unlink(missing_ok=True)
    for folder in spaces(root):
        if not any(folder.glob(f"*{SUFFIX}")) and most < 1:
            (folder / ABOUT).unlink(missing_ok=True)
            _remove_empty(folder)
    return Pruned(len(gone), taken, total)


def _remove_empty(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError:  # another run has begun to fill it
        return


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _age(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _used(folder: Path) -> float:
    return _age(folder / ABOUT)


def _is_stale(path: Path) -> bool:
    return time.time() - _age(path) > STALE_SECONDS
