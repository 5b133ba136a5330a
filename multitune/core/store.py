"""One key function and one content-addressed place for whatever is made once and read many times."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path

from multitune.core.errors import MACHINE, writing

ELSEWHERE = "Free some space, or name another folder in MULTITUNE_CACHE."


def cache_root() -> Path:
    """The folder for what can be made again: `MULTITUNE_CACHE`, else `~/.cache/multitune`."""
    given = os.environ.get("MULTITUNE_CACHE")
    return Path(given) if given else Path.home() / ".cache" / "multitune"


def canonical(value: object) -> str:
    """JSON with sorted keys and no spaces, the same text for equal values; refuses what is not plain data."""
    return json.dumps(value, sort_keys=True, ensure_ascii=True, separators=(",", ":"), allow_nan=False)


def key(parts: Mapping[str, object]) -> str:
    """The sha256 (hex) of a mapping of plain data: THE key function of the project."""
    return hashlib.sha256(canonical(parts).encode()).hexdigest()


def hash_file(path: Path) -> str:
    """The sha256 (hex) of a file's bytes, read in blocks of 1 MiB."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def folder_once(kind: str, parts: Mapping[str, object], write: Callable[[Path], None]) -> Path:
    """The folder that `write` fills, made on the first call with these `parts` and found again on later ones.

    kind: one word, the folder's name under the cache root. It appears under its final name only when complete: a kill
    leaves a temporary folder, never half of one. Two processes may race; the first to finish wins.

    Raises: Fault if the machine does not take it.
    """
    final = cache_root() / kind / key(parts)[:20]
    if final.is_dir():
        return final
    draft = final.with_name(f"{final.name}.tmp-{uuid.uuid4().hex[:8]}")
    with writing(draft, ELSEWHERE):
        draft.mkdir(parents=True)
    try:
        try:
            write(draft)
        except OSError as error:  # what `write` reads may be the user's, and tells of itself
            if error.errno not in MACHINE:
                raise
            with writing(draft, ELSEWHERE):
                raise
        try:
            draft.rename(final)
        except OSError:
            if not final.is_dir():
                raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return final
