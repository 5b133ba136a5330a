"""A folder of pictures or sounds, a class a folder: `ROOT/CLASS/*.png`, or `ROOT/train/CLASS/*.png` beside `valid` and `test`.

Columns: `id` (the path within the folder), the part that the option `part` names (its path), `label` (the name of the class's folder)
and, where ROOT holds nothing but folders called train, valid (or val) and test, `split`. Files come in the order of their
paths. Links, pipes and devices are passed over, and so are names that begin with a dot and files that no modality's ending fits.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from multitune.core import catalog
from multitune.core.errors import DataError, did_you_mean
from multitune.core.protocols import Rows, Source
from multitune.core.store import key

ENDINGS = {".jpg", ".jpeg", ".png", ".webp", ".wav", ".flac"}
SPLITS = {"train": "train", "valid": "valid", "val": "valid", "validation": "valid", "test": "test"}


class Options(catalog.Options):
    """Which folder."""

    path: Path = Field(description="The folder that holds one folder for each class.")
    part: str = Field(default="image", description="The column that gets the files' paths.")


class FolderRows:
    """The files of a folder as rows. fingerprint: over paths, sizes and time stamps; no file is opened."""

    def __init__(self, name: str, root: Path, part: str, files: Sequence[tuple[str, str, str]], stamps: Sequence[Any]) -> None:
        self.name, self.root, self._part, self._files = name, root, part, tuple(files)
        self.columns = ("id", part, "label", *(("split",) if self._files[0][2] else ()))
        self.fingerprint = key({"part": part, "files": [list(file) for file in self._files], "stamps": list(stamps)})

    def __len__(self) -> int:
        return len(self._files)

    def id(self, index: int) -> str:
        """The path within the folder."""
        return self._files[index][0]

    def row(self, index: int) -> Mapping[str, Any]:
        """Column -> text."""
        path, label, split = self._files[index]
        return {"id": path, self._part: path, "label": label} | ({"split": split} if split else {})

    def column(self, name: str) -> Sequence[Any]:
        """All cells of a column in order."""
        if name not in self.columns:
            raise DataError(self.name, f'has no column "{name}"; there are {", ".join(self.columns)}.', did_you_mean(name, self.columns))
        return [self.row(index)[name] for index in range(len(self))]


class Folder:
    """The source."""

    def __init__(self, options: Options) -> None:
        self._options = options

    def read(self) -> Rows:
        """The files as rows.

        Raises: DataError if there is no such folder or nothing in it.
        """
        root, part = self._options.path, self._options.part
        if not root.is_dir():
            raise DataError(str(root), "there is no such folder.", "Name a folder that holds a folder for each class.")
        if part in {"id", "label", "split"}:
            raise DataError("folder.part", f'"{part}" is a column of its own here.', "Choose another name.")
        tops = _folders(root)
        if not tops:
            raise DataError(str(root), "holds no folders.", "Put the files of each class into a folder of its name.")
        found: list[tuple[str, str, str]] = []
        if all(top.name in SPLITS for top in tops):
            for top in tops:
                found += [(file, label, SPLITS[top.name]) for file, label in _classes(root, top)]
        else:
            found += [(file, label, "") for file, label in _classes(root, root)]
        if not found:
            raise DataError(str(root), f"holds no files of these endings: {', '.join(sorted(ENDINGS))}.", "Check the folder.")
        found.sort()
        stamps = [(status.st_size, status.st_mtime_ns) for status in (os.stat(root / file) for file, _, _ in found)]
        return FolderRows(root.resolve().name, root.resolve(), part, found, stamps)


def build(options: Options) -> Source:
    """The source of these options."""
    return Folder(options)


def _classes(root: Path, top: Path) -> Iterator[tuple[str, str]]:
    for folder in _folders(top):
        for file in _files(folder):
            yield file.relative_to(root).as_posix(), folder.name


def _folders(folder: Path) -> list[Path]:
    with os.scandir(folder) as entries:
        return sorted(Path(e.path) for e in entries if e.is_dir(follow_symlinks=False) and not e.name.startswith("."))


def _files(folder: Path) -> Iterator[Path]:
    with os.scandir(folder) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    for entry in entries:
        path = Path(entry.path)
        if entry.name.startswith("."):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from _files(path)
        elif entry.is_file(follow_symlinks=False) and path.suffix.lower() in ENDINGS:
            yield path
