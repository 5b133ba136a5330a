"""All sources of a recipe under one index: a weighted mix, other sources joined by key, the split's own sources."""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np

from multitune.core import catalog
from multitune.core.errors import DataError, did_you_mean, one_of
from multitune.core.protocols import Rows, Split
from multitune.core.recipe import Component, DataSpec, JoinSpec
from multitune.data.manifest import Manifest, check_unique
from multitune.data.reading.delimited import looks_separated
from multitune.data.sample import is_absent


@dataclass(frozen=True)
class Joined:
    """A source joined to another: `matches[i]` is its row for row i, -1 where no key is equal."""

    rows: Rows
    columns: tuple[str, ...]
    matches: np.ndarray


@dataclass(frozen=True)
class Entry:
    """One source of the mix. name: unique among them. split: the one split that all its rows are in; empty: not decided here."""

    name: str
    rows: Rows
    weight: float = 1.0
    split: Split | Literal[""] = ""
    joined: tuple[Joined, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """Its own columns and the joined ones."""
        return (*self.rows.columns, *(name for other in self.joined for name in other.columns))

    @property
    def all_rows(self) -> tuple[Rows, ...]:
        """Its own rows and those joined to them."""
        return (self.rows, *(other.rows for other in self.joined))


class Mixed:
    """The rows of all entries, one after the other. With several mixed sources an id is `<source>/<id>`; picklable."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        self.entries = tuple(entries)
        self.starts = [0]
        for entry in self.entries:
            self.starts.append(self.starts[-1] + len(entry.rows))
        self._prefixed = sum(entry.split == "" for entry in self.entries) > 1

    def __len__(self) -> int:
        return self.starts[-1]

    def entry(self, index: int) -> tuple[Entry, int]:
        """The source of a row, and the row's number in it."""
        number = bisect.bisect_right(self.starts, index) - 1
        return self.entries[number], index - self.starts[number]

    def id(self, index: int) -> str:
        """The row's id, unique in the mix."""
        entry, local = self.entry(index)
        own = entry.rows.id(local)
        return f"{entry.name}/{own}" if self._prefixed else own

    def ids(self) -> Iterator[str]:
        """All ids in order; of tables few are in memory at a time."""
        for entry in self.entries:
            rows = entry.rows
            own = rows.ids() if isinstance(rows, Manifest) else (rows.id(local) for local in range(len(rows)))
            yield from (f"{entry.name}/{one}" for one in own) if self._prefixed else own

    def place(self, index: int) -> str:
        """Where a person finds the row, for messages: its file and line, else its source, number and id."""
        entry, local = self.entry(index)
        if isinstance(entry.rows, Manifest):
            return entry.rows.place(local)
        return f"{entry.name}, row {local + 1} ({self.id(index)})"

    def row(self, index: int) -> Mapping[str, Any]:
        """Column -> cell, joined columns among them; absent cells are left out."""
        entry, local = self.entry(index)
        row = entry.rows.row(local)
        for other in entry.joined:
            match = int(other.matches[local])
            if match >= 0:
                found = other.rows.row(match)
                row = {**row, **{name: found[name] for name in other.columns if name in found}}
        return row

    def root(self, index: int, column: str) -> Path | None:
        """What relative paths in this column are relative to."""
        return _root(self.entry(index)[0], column)

    def roots(self, column: str) -> list[Path | None]:
        """`root` of each entry's rows."""
        return [_root(entry, column) for entry in self.entries]

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of all sources."""
        return tuple(dict.fromkeys(name for entry in self.entries for name in entry.columns))

    def column(self, name: str) -> list[Any]:
        """The cells of a column in order; None where absent, also where a source has no such column.

        Raises: DataError if no source has it.
        """
        return list(self.cells(name))

    def cells(self, name: str) -> Iterator[Any]:
        """The cells of a column as `column` has them; of tables few are in memory at a time.

        Raises: DataError if no source has it.
        """
        self.require(name)
        return chain.from_iterable(_cells(entry, name) for entry in self.entries)

    def present(self, name: str) -> np.ndarray:
        """Whether each row has something in a column, bool (rows,); the bytes of media are not read.

        Raises: DataError if no source has it.
        """
        self.require(name)
        return np.concatenate([_present(entry, name) for entry in self.entries])

    def paths(self, name: str, *, limit: int) -> Iterator[tuple[int, str]]:
        """The numbers of rows and the files that tables name in a column; of each source the first `limit` rows."""
        for start, entry in zip(self.starts, self.entries, strict=False):
            if isinstance(entry.rows, Manifest) and name in entry.rows.columns:
                yield from ((start + place, path) for place, path in enumerate(entry.rows.paths(name, limit=limit)) if path is not None)

    def require(self, name: str) -> None:
        """Refuse a column that no source has.

        Raises: DataError with the nearest one.
        """
        if name not in self.columns:
            found = f'no source has a column "{name}"; there are {", ".join(self.columns)}.'
            separated = [told for entry in self.entries if (told := looks_separated(entry.rows.columns))]
            raise DataError("data", found, separated[0] if separated else did_you_mean(name, self.columns))


def _root(entry: Entry, column: str) -> Path | None:
    return next((other.rows.root for other in entry.joined if column in other.columns), entry.rows.root)


def read(spec: DataSpec) -> Mixed:
    """All sources that the recipe names, under one index.

    Raises: DataError or PluginError for a source that cannot be read, a key that is there twice, an id of two sources.
    """
    entries: list[Entry] = []
    single = spec.source is not None
    for number, given in enumerate(spec.entries):
        where = "data.source" if single else f"data.mix.{number}.source"
        entries.append(_entry(open_source(given.source, where=where), given.weight, "", entries))
    for split, component in spec.split.sources.items():
        entries.append(_entry(open_source(component, where=f"data.split.sources.{split}"), 1.0, split, entries))
    if spec.join is not None:
        entries = [_with_join(entry, spec.join) for entry in entries]
    mixed = Mixed(entries)
    if len(entries) > 1:
        check_unique(mixed.ids, where="data")
    return mixed


def open_source(component: Component, *, where: str) -> Rows:
    """The rows of one source.

    Raises: PluginError for an unknown source or option; DataError for one that cannot be read.
    """
    return catalog.find("source", component.name, component.options, where=where).build().read()


def _entry(rows: Rows, weight: float, split: Any, before: Sequence[Entry]) -> Entry:
    taken = {entry.name for entry in before}
    name, number = rows.name, 2
    while name in taken:
        name, number = f"{rows.name}-{number}", number + 1
    return Entry(name, rows, weight, split)


def _with_join(entry: Entry, spec: JoinSpec) -> Entry:
    if spec.key not in entry.rows.columns:
        raise DataError(
            "data.join.key",
            f'the source {entry.name} has no column "{spec.key}"; there are {one_of(entry.rows.columns)}.',
            did_you_mean(spec.key, entry.rows.columns),
        )
    keys = entry.rows.column(spec.key)
    joined: list[Joined] = []
    seen = set(entry.rows.columns)
    for number, component in enumerate(spec.sources):
        where = f"data.join.sources.{number}"
        rows = open_source(component, where=where)
        if spec.key not in rows.columns:
            raise DataError(where, f'has no column "{spec.key}"; there are {one_of(rows.columns)}.', did_you_mean(spec.key, rows.columns))
        columns = tuple(name for name in rows.columns if name not in {spec.key, "id"})
        twice = [name for name in columns if name in seen]
        if twice:
            raise DataError(where, f'brings the column "{twice[0]}", which is there already.', "Rename one of the two.")
        seen.update(columns)
        joined.append(Joined(rows, columns, _matches(keys, rows.column(spec.key), where=where, key=spec.key)))
    return Entry(entry.name, entry.rows, entry.weight, entry.split, tuple(joined))


def _matches(keys: Sequence[Any], others: Sequence[Any], *, where: str, key: str) -> np.ndarray:
    place: dict[Any, int] = {}
    for number, value in enumerate(others):
        if value is not None and (earlier := place.setdefault(value, number)) != number:
            found = f'the {key} "{value}" is in row {earlier + 1} and in row {number + 1}.'
            raise DataError(where, found, "A joined source has a key once.")
    return np.array([-1 if value is None else place.get(value, -1) for value in keys], dtype=np.int64)


def _present(entry: Entry, name: str) -> np.ndarray:
    if name in entry.rows.columns:
        return _filled(entry.rows, name)
    for other in entry.joined:
        if name in other.columns:
            return (other.matches >= 0) & _filled(other.rows, name)[other.matches]
    return np.zeros(len(entry.rows), dtype=bool)


def _filled(rows: Rows, name: str) -> np.ndarray:
    if isinstance(rows, Manifest):
        return rows.present(name)
    return np.array([not is_absent(cell) for cell in rows.column(name)], dtype=bool)


def _cells(entry: Entry, name: str) -> Iterable[Any]:
    if name in entry.rows.columns:
        return entry.rows.cells(name) if isinstance(entry.rows, Manifest) else entry.rows.column(name)
    for other in entry.joined:
        if name in other.columns:
            cells = other.rows.column(name)
            return [cells[match] if match >= 0 else None for match in other.matches.tolist()]
    return [None] * len(entry.rows)
