"""A folder of rows that multitune makes itself: once, whole, and never over someone else's files."""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
import PIL

from multitune.core.errors import DataError
from multitune.core.store import canonical, folder_once

ROWS = "rows.jsonl"
MADE = "made.json"


def made_folder(kind: str, parts: Mapping[str, object], *, path: Path | None, write: Callable[[Path], None]) -> Path:
    """The folder that `write` fills for these `parts`: in the cache, or at `path`; found again where it is already made.

    The versions of the libraries that draw are part of the key, since they decide single bits.
    Raises: DataError if `path` holds anything but what these `parts` made.
    """
    wanted = {"kind": kind, "numpy": np.__version__, "pillow": PIL.__version__, **parts}

    def write_marked(folder: Path) -> None:
        write(folder)
        (folder / MADE).write_text(canonical(wanted) + "\n", "utf-8")

    if path is None:
        return folder_once(kind, wanted, write_marked)
    if path.is_dir() and any(path.iterdir()):
        return _found(kind, wanted, path)
    if path.exists() and not path.is_dir():
        raise DataError(f"{kind}.path", f"{path} is a file.", "Name a new or an empty folder.")
    draft = path.with_name(f"{path.name}.tmp-{uuid.uuid4().hex[:8]}")
    draft.mkdir(parents=True)
    try:
        write_marked(draft)
        if path.is_dir():
            path.rmdir()  # an empty folder stands in the way of a rename on some systems
        draft.rename(path)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return path


def write_rows(folder: Path, rows: Iterable[Mapping[str, object]]) -> None:
    """Write the table, one JSON object a line."""
    with (folder / ROWS).open("w", encoding="utf-8", newline="\n") as stream:
        for row in rows:
            stream.write(json.dumps(row, ensure_ascii=False, separators=(", ", ": ")) + "\n")


def _found(kind: str, wanted: Mapping[str, object], path: Path) -> Path:
    marker = path / MADE
    if not marker.is_file():
        raise DataError(f"{kind}.path", f"{path} holds files that {kind} did not make.", "Name a new or an empty folder.")
    if marker.read_text("utf-8").strip() != canonical(wanted):
        raise DataError(f"{kind}.path", f"{path} was made with other options.", "Name another folder, or remove this one first.")
    return path
