"""What a path holds that can be read as rows: a table, a folder of classes, or tables in a folder; and what it holds besides."""

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from multitune.core import catalog
from multitune.core.errors import DataError, one_of
from multitune.core.protocols import Rows
from multitune.data.reading import FORMATS, SEPARATORS
from multitune.data.reading.rows import lines

PICTURES = {".jpg", ".jpeg", ".png", ".webp"}
SOUNDS = {".wav", ".flac"}
SPLITS = {"train": "train", "valid": "valid", "val": "valid", "validation": "valid", "dev": "valid", "test": "test"}
MOST_FILES = 200_000
HEAD = 50  # lines in which a separator is looked for
NAMES = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars (|)"}
WHAT_IS_READ = (
    "Read are tables (.jsonl, .csv, .tsv, .parquet), and pictures (.jpg, .png, .webp) or sounds (.wav, .flac) in a folder for each class."
)


@dataclass(frozen=True)
class Found:
    """Rows and the component that reads them. others: valid and test, where they have tables of their own. told: what was seen."""

    source: Mapping[str, Any]
    rows: Rows
    told: tuple[str, ...]
    others: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Contents:
    """The files below a folder, by what their endings say. loose: media that lie beside the folders, in none of them."""

    tables: tuple[Path, ...]
    pictures: int
    sounds: int
    loose: int
    others: Mapping[str, int]


def find(path: Path, *, root: Path | None, separator: str) -> Found:
    """The rows at a path.

    Raises: DataError for what is not there, holds nothing that can be read, or can be read in more than one way.
    """
    if path.is_dir():
        return _in_folder(path, root, separator)
    return _table(path, root, separator)


def _table(path: Path, root: Path | None, separator: str) -> Found:
    form = FORMATS.get(path.suffix.lower(), "")
    options: dict[str, Any] = {"name": "table", "path": path.as_posix()}
    told = [f"a table, {form or path.suffix}"]
    if form in SEPARATORS:
        mark = separator or _separator(path, SEPARATORS[form])
        told = [f"a table, cells separated by {NAMES.get(mark, mark)} ({'as --separator says' if separator else 'the lines say so'})"]
        if mark != SEPARATORS[form]:
            options["separator"] = mark
    if root is not None:
        options["root"] = root.as_posix()
    try:
        rows = read(options)
    except DataError as error:
        if "the id" not in error.found and "has no id" not in error.found:
            raise
        told.append(f'the column "id" does not name each row ({error.found.rstrip(".")}), so rows are numbered')
        options["id"] = ""
        rows = read(options)
    return Found(options, rows, (*told, f"{len(rows):,} rows, {len(rows.columns)} columns"))


def read(source: Mapping[str, Any]) -> Rows:
    """The rows that a source component gives."""
    options = {name: value for name, value in source.items() if name != "name"}
    return catalog.find("source", source["name"], options, where="data.source").build().read()


def _separator(path: Path, usual: str) -> str:
    """What separates the cells of the first lines: the only mark that gives each of them the same number of cells, above one.

    Raises: DataError where several do.
    """
    fits = {mark: cells for mark in (",", ";", "\t", "|") if (cells := _cells(path, mark)) > 1}
    if len(fits) > 1 and usual not in fits:
        found = f"its lines fit {' and '.join(NAMES[mark] for mark in fits)} alike."
        raise DataError(str(path), found, 'Say which: --separator ";" (or another).')
    if len(fits) > 1 and fits[usual] < max(fits.values()):
        shown = ", ".join(f"{NAMES[mark]} give {cells} columns" for mark, cells in fits.items())
        raise DataError(str(path), f"its lines fit several separators: {shown}.", 'Say which: --separator ";" (or another).')
    return usual if usual in fits or not fits else next(iter(fits))


def _cells(path: Path, mark: str) -> int:
    """How many cells each of the first lines has with this mark; 0 where they differ."""
    counts: set[int] = set()
    with path.open("rb") as stream:
        reader = csv.reader(lines(path, stream), delimiter=mark, strict=True)
        try:
            for number, cells in enumerate(reader):
                if number == HEAD:
                    break
                if cells:
                    counts.add(len(cells))
        except csv.Error:
            return 0
    return counts.pop() if len(counts) == 1 else 0


def _in_folder(path: Path, root: Path | None, separator: str) -> Found:
    held = contents(path)
    media = held.pictures + held.sounds
    if not held.tables and not media:
        found = f"holds nothing that can be read ({_counted(held.others) or 'no files'})."
        raise DataError(str(path), found, WHAT_IS_READ)
    if held.tables:
        return _tables(path, held, root, separator)
    if held.loose == media:
        what = _media(held)
        found = f"holds {what} and nothing that says what they show: no table, and no folder for each class."
        raise DataError(str(path), found, "Put the files of each class into a folder of its name, or write a table that names them.")
    if held.pictures and held.sounds:
        found = f"holds {_media(held)} side by side; a folder of classes is read as one or the other."
        raise DataError(str(path), found, "Name a folder that holds one kind, or write a table with a column for each.")
    part = "image" if held.pictures else "audio"
    source: dict[str, Any] = {"name": "folder", "path": path.as_posix()} | ({} if part == "image" else {"part": part})
    rows = read(source)
    names = sorted({str(label) for label in rows.column("label")})
    if len(names) < 2:
        found = f'all {len(rows):,} files are of one class, "{names[0]}" (the folder\'s name).'
        raise DataError(str(path), found, "Name the folder above: it holds a folder for each class.")
    told = [f"a folder of {_media(held)} in {len(names)} folders, each a class"]
    told += [f"{held.loose} files lie beside the folders and are not read"] if held.loose else []
    told += [f"not read: {_counted(held.others)}"] if held.others else []
    return Found(source, rows, tuple(told))


def _tables(path: Path, held: Contents, root: Path | None, separator: str) -> Found:
    """The table in a folder, or those of its splits.

    Raises: DataError where the folder can be read in more than one way.
    """
    shown = one_of(table.relative_to(path).as_posix() for table in held.tables[:6])
    by_split = {SPLITS[table.stem.lower()]: table for table in held.tables if table.stem.lower() in SPLITS}
    beside = tuple([f"the folder also holds {_media(held)}"] if held.pictures + held.sounds else [])
    if len(held.tables) == 1:
        found = _table(held.tables[0], root, separator)
        return Found(found.source, found.rows, (f"a folder with one table, {shown}", *found.told, *beside))
    if "train" not in by_split or len(by_split) < len(held.tables):
        raise DataError(str(path), f"holds {len(held.tables)} tables: {shown}.", "Name the one that is meant.")
    found = _table(by_split.pop("train"), root, separator)
    others = {split: _table(table, root, separator).source for split, table in sorted(by_split.items(), reverse=True)}
    return Found(
        found.source, found.rows, (f"a folder with a table for each split: {shown}; train is looked at", *found.told, *beside), others
    )


def contents(folder: Path) -> Contents:
    """What lies below a folder, by endings; links and names that begin with a dot are passed over."""
    tables: list[Path] = []
    counts: Counter[str] = Counter()
    loose = 0
    for path in _files(folder):
        ending = path.suffix.lower()
        if ending in FORMATS:
            tables.append(path)
        counts[ending] += 1
        loose += path.parent == folder and ending in PICTURES | SOUNDS
    pictures, sounds = (sum(counts[ending] for ending in endings) for endings in (PICTURES, SOUNDS))
    others = {
        ending or "no ending": n
        for ending, n in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        if ending not in PICTURES | SOUNDS and ending not in FORMATS
    }
    return Contents(tuple(sorted(tables)), pictures, sounds, loose, others)


def _files(folder: Path) -> Iterator[Path]:
    seen = 0
    for home, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(home, name)
            if not name.startswith(".") and path.is_file() and not path.is_symlink():
                yield path
                seen += 1
        if seen > MOST_FILES:
            return


def _media(held: Contents) -> str:
    shown = [f"{number:,} {what}" for number, what in ((held.pictures, "pictures"), (held.sounds, "sounds")) if number]
    return " and ".join(shown)


def _counted(endings: Mapping[str, int], limit: int = 5) -> str:
    shown: Sequence[str] = [f"{number:,} {ending}" for ending, number in list(endings.items())[:limit]]
    return ", ".join(shown) + (" ..." if len(endings) > limit else "")
