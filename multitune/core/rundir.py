"""A run folder is a promise: named after its request, locked, written atomically, hashed.

This module is imported before torch, so that a second run in one folder is refused at once.
"""

from __future__ import annotations

import json
import os
import re
import time
import uuid
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from multitune.core.errors import RunError, writing
from multitune.core.recipe import differences

FORM = 1
REQUEST = "request.json"  # what makes a folder a run's
TAGS = "tags.json"  # words that its user gave it; no part of the request
# What a run makes before its first checkpoint: it can be made again.
REMADE = ("plan.json", "plan.txt", "recipe.yaml", "basis.json", "cuts.json", "features.json", "untuned.json", "events.jsonl")


class RunDir:
    """A locked run folder. `close` (or the process's end) gives the lock back."""

    def __init__(self, folder: Path, lock: FileLock | None) -> None:
        self.folder = folder
        self._lock = lock
        self._started = time.monotonic()

    def write_text(self, name: str, text: str) -> Path:
        """Write a file whole or not at all."""
        return write_atomic(self.folder / name, text.encode("utf-8"))

    def write_json(self, name: str, value: object) -> Path:
        """Write plain data as JSON, whole or not at all."""
        return self.write_text(name, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")

    def read_json(self, name: str) -> Any | None:
        """What `write_json` wrote, or None if there is no such file yet."""
        path = self.folder / name
        return json.loads(path.read_text("utf-8")) if path.is_file() else None

    def close(self) -> None:
        """Give the lock back."""
        if self._lock is not None:
            self._lock.release()

    def __enter__(self) -> RunDir:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def run_folder(*, name: str, request_hash: str, folder: Path | None) -> Path:
    """`--run FOLDER`, else `runs/<name>-<first 6 of the request's hash>`."""
    return folder if folder is not None else Path("runs") / f"{name}-{request_hash[:6]}"


def open_run(
    *, request: Mapping[str, Any], request_hash: str, name: str, folder: Path | None, fresh: bool, over_unspent: bool = False
) -> RunDir:
    """The locked folder of this request: new, or the unfinished or finished one of the same request.

    over_unspent: a folder in which no run has come to a checkpoint yet claims nothing: what a mistake left there is made again.
    Raises: RunError if another process holds it, or it belongs to another request (with the difference).
    """
    path = run_folder(name=name, request_hash=request_hash, folder=folder)
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / f".write-{uuid.uuid4().hex[:8]}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise RunError(str(path), f"cannot be written ({error.strerror}).", "Choose another folder with --run.") from None
    lock = FileLock(path / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise RunError(str(path), "is in use by another run.", "Wait for it, or choose another folder with --run.") from None
    try:
        if fresh:
            _move_aside(path)
        again = over_unspent and (path / REQUEST).is_file() and not _spent(path)
        if again:
            for left in REMADE:
                (path / left).unlink(missing_ok=True)
        _claim(path, request, request_hash, again=again)
    except BaseException:
        lock.release()
        raise
    return RunDir(path, lock)


def check_tags(tags: Sequence[str]) -> None:
    """Refuse what is no tag.

    Raises: RunError for one that is no single word.
    """
    for tag in tags:
        if not re.fullmatch(r"[\w][\w.:/+-]{0,63}", tag):
            raise RunError("--tag", f'found "{tag}".', "A tag has letters, digits and . : / + _ - only, at most 64.")


def keep_tags(run: RunDir, tags: Sequence[str]) -> None:
    """Add tags to those that a run has, in the order in which they were given."""
    known = [str(tag) for tag in run.read_json(TAGS) or ()]
    if new := [tag for tag in dict.fromkeys(tags) if tag not in known]:
        run.write_json(TAGS, [*known, *new])


def _spent(path: Path) -> bool:
    """Whether a run has come to a checkpoint or to its end here."""
    checkpoints = path / "checkpoints"
    return (path / "result.json").exists() or (checkpoints.is_dir() and any(checkpoints.iterdir()))


def _claim(path: Path, request: Mapping[str, Any], request_hash: str, *, again: bool) -> None:
    stamp = path / REQUEST
    if stamp.is_file():
        try:
            found = json.loads(stamp.read_text("utf-8"))
            old_hash, old = found["hash"], found["request"]
        except (ValueError, KeyError, TypeError):
            raise RunError(str(stamp), "cannot be read.", "Move the folder away, or choose another with --run.") from None
        if old_hash != request_hash and not again:
            lines = list(differences(old, request))[:8]
            shown = "; ".join(lines) or "the data in memory"
            raise RunError(str(path), f"belongs to another request: {shown}.", "Choose another with --run, or --fresh to move it aside.")
        if old == request:
            return
    else:
        _refuse_foreign(path)
    text = json.dumps({"form": FORM, "hash": request_hash, "request": request}, indent=1, ensure_ascii=False)
    write_atomic(stamp, text.encode("utf-8"))


def _refuse_foreign(path: Path) -> None:
    others = sorted(entry.name for entry in path.iterdir() if entry.name != ".lock")
    if others:
        raise RunError(str(path), f"is not a run folder (it holds {others[0]}).", "Choose an empty or new folder with --run.")


def _move_aside(path: Path) -> None:
    """Move what a run's folder holds into `<folder>.old-N`, the lock excepted; nothing is deleted.

    Raises: RunError for a folder that holds something and is no run's.
    """
    entries = [entry for entry in path.iterdir() if entry.name != ".lock"]
    if not entries:
        return
    if not (path / REQUEST).is_file():
        _refuse_foreign(path)
    number, whole = 1, path.resolve()
    while (aside := whole.with_name(f"{whole.name}.old-{number}")).exists():
        number += 1
    aside.mkdir()
    for entry in entries:
        entry.rename(aside / entry.name)


def write_atomic(path: Path, data: bytes) -> Path:
    """Write bytes so that the file is either the old one or the whole new one, also after a power cut.

    Raises: Fault if the machine does not take them; the old file is then untouched.
    """
    with writing(path), replacing(path) as draft:
        draft.write_bytes(data)
    return path


@contextmanager
def replacing(path: Path) -> Generator[Path]:
    """A draft to be filled, beside `path`; it takes that name, whole, where the block ends well, and is gone where it does not.

    Raises: Fault if the machine does not take it; what the block itself raises is not touched.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.tmp-{uuid.uuid4().hex[:8]}")
    try:
        yield draft
        with writing(path):
            with draft.open("rb+") as stream:
                os.fsync(stream.fileno())
            draft.replace(path)
            sync_folder(path.parent)
    finally:
        draft.unlink(missing_ok=True)


def sync_folder(path: Path) -> None:
    """Flush a folder's entries to the disk where the system can."""
    if os.name != "posix":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
