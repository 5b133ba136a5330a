"""Rows already in memory: a list of mappings, a DataFrame, an Arrow table, or any map-style data set of mappings.

Cells may be text, numbers, bytes, paths, PIL pictures, arrays, sounds or pairs (wave, rate). Plain values count as the text that a
table would hold, so the same data give the same run from memory and from a file. None, an empty text and, in a DataFrame, NaN
are absent.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image
from pydantic import Field

from multitune.core import catalog
from multitune.core.errors import DataError, did_you_mean
from multitune.core.protocols import Rows, Sound, Source
from multitune.data.manifest import check_unique
from multitune.data.reading.parquet import as_text
from multitune.data.sample import cell


class MemoryRows:
    """Rows in memory, with the hash of their content as `fingerprint`. Made by `MemoryRows.of`."""

    def __init__(self, rows: Any, *, name: str, root: Path | None) -> None:
        self.name, self.root = name, root
        self._rows = rows
        digest = hashlib.sha256(b"rows 1")
        columns: dict[str, list[Any]] = {}
        for number in range(len(rows)):
            row = self.row(number)
            for column in rows[number]:
                columns.setdefault(str(column), [None] * len(rows))
            for column, value in sorted(row.items()):
                digest.update(f"\0{number}\0{column}\0".encode("utf-8", "surrogatepass"))
                digest.update(b"".join(_content(value, f"{name}, row {number + 1}, {column}")))
                columns[column][number] = value if isinstance(value, str) else True
        if not len(rows):
            raise DataError(name, "holds no rows.", "Give at least one.")
        self.columns = tuple(columns)
        self.fingerprint = digest.hexdigest()
        self._cells = columns
        if "id" in columns:
            check_unique(lambda: columns["id"], where=name)

    @classmethod
    def of(cls, data: Any, *, name: str = "rows", root: Path | None = None) -> MemoryRows:
        """The rows in `data`; what is a `MemoryRows` already stays as it is.

        Raises: DataError if `data` is nothing that holds rows.
        """
        if isinstance(data, MemoryRows):
            return data
        data = _records(data)
        if isinstance(data, pa.RecordBatch):
            data = pa.Table.from_batches([data])
        if isinstance(data, pa.Table):
            data = as_text(data, where=name).to_pylist()
        elif type(data).__module__.partition(".")[0] == "pandas" and hasattr(data, "to_dict"):
            data = [{str(name): None if _is_nan(value) else value for name, value in row.items()} for row in data.to_dict("records")]
        elif isinstance(data, str | bytes | Mapping) or not (hasattr(data, "__len__") and hasattr(data, "__getitem__")):
            raise DataError(name, f"found {type(data).__name__}.", "Give a list of mappings, a DataFrame, an Arrow table or a data set.")
        return cls(data, name=name, root=root)

    def __len__(self) -> int:
        return len(self._rows)

    def id(self, index: int) -> str:
        """The row's own id, else `rows:<number from 1>`."""
        return self._cells["id"][index] if "id" in self._cells else f"{self.name}:{index + 1}"

    def row(self, index: int) -> Mapping[str, Any]:
        """Column -> text, or the object; absent cells are left out."""
        row = self._rows[index]
        if not isinstance(row, Mapping):
            raise DataError(f"{self.name}, row {index + 1}", f"is {type(row).__name__}, not a mapping.", "Give column names.")
        cells = ((str(name), cell(value)) for name, value in row.items())
        return {name: value for name, value in cells if value is not None}

    def column(self, name: str) -> Sequence[Any]:
        """All cells of a column in order: its texts, True where there is a medium, None where absent."""
        if name not in self.columns:
            raise DataError(self.name, f'has no column "{name}"; there are {", ".join(self.columns)}.', did_you_mean(name, self.columns))
        return self._cells[name]


class Options(catalog.Options):
    """The rows themselves; from Python only."""

    rows: Any = Field(description="A MemoryRows, or what it can be made of.")
    root: Path | None = Field(default=None, description="What relative paths of media are relative to; the working folder by default.")


class InMemory:
    """The source."""

    def __init__(self, options: Options) -> None:
        self._options = options

    def read(self) -> Rows:
        """The rows.

        Raises: DataError if they are no rows, or only what a request keeps of them.
        """
        if isinstance(self._options.rows, Mapping) and "memory" in self._options.rows:
            raise DataError(
                "data.source.rows", "were in memory when the recipe was made, and are not kept.", "Give the rows again (data=)."
            )
        return MemoryRows.of(self._options.rows, root=self._options.root)


def held(values: Any) -> Any:
    """A recipe's mapping with the rows of every source `rows` as `MemoryRows`, whatever they were given as; the rest as it is.

    Raises: DataError for rows that are none.
    """
    if isinstance(values, list | tuple):
        return [held(value) for value in values]
    if not isinstance(values, Mapping):
        return values
    if values.get("name") == "rows" and isinstance(values.get("options"), Mapping):
        return {**values, "options": _held(values["options"])}
    if values.get("name") == "rows" and "rows" in values:
        return _held(values)
    return {name: held(value) for name, value in values.items()}


def _held(options: Mapping[str, Any]) -> dict[str, Any]:
    rows, root = options.get("rows"), options.get("root")
    if rows is None or (isinstance(rows, Mapping) and "memory" in rows):
        return dict(options)
    return {**options, "rows": MemoryRows.of(rows, root=Path(root) if isinstance(root, str | Path) else None)}


def build(options: Options) -> Source:
    """The source of these options."""
    return InMemory(options)


def _records(data: Any) -> Any:
    """A structured array as mappings; anything else as it is."""
    names = data.dtype.names if isinstance(data, np.ndarray) else None
    return [{name: row[name] for name in names} for row in data] if names else data


def _is_nan(value: Any) -> bool:
    """Whether a cell of a DataFrame is one of its spellings of nothing."""
    return value is None or (isinstance(value, float) and value != value) or type(value).__name__ in {"NAType", "NaTType"}


def _content(value: Any, where: str) -> Iterator[bytes]:
    """The bytes that decide a cell, with its form: equal bytes of another shape are another value."""
    if isinstance(value, str):
        yield b"t" + value.encode("utf-8", "surrogatepass")
    elif isinstance(value, bytes | bytearray | memoryview):
        yield b"b" + bytes(value)
    elif isinstance(value, Path):
        status = value.stat() if value.is_file() else None
        yield f"p{value}|{(status.st_size, status.st_mtime_ns) if status is not None else ''}".encode()
    elif isinstance(value, Image.Image):
        yield f"i{value.mode}{value.size}{sorted(str(k) for k in value.info)}".encode()
        yield value.tobytes() + (str(value.getpalette()).encode() if value.mode == "P" else b"")
    elif isinstance(value, np.ndarray):
        if value.dtype.hasobject:
            raise DataError(where, "is an array of Python objects.", "Give an array of numbers.")
        yield f"a{value.dtype.str}{value.shape}".encode()
        yield np.ascontiguousarray(value).tobytes()
    elif isinstance(value, Sound):
        yield from _content((value.wave, value.rate), where)
    elif isinstance(value, Mapping):
        for name, inner in sorted(value.items(), key=lambda pair: str(pair[0])):
            yield f"m{name}".encode()
            yield from () if inner is None else _content(cell(inner), where)
    elif isinstance(value, tuple | list):
        yield f"l{len(value)}".encode()
        for inner in value:
            yield from _content(cell(inner), where)
    else:
        raise DataError(
            where, f"is {type(value).__name__}, which no modality takes.", "Give text, a number, bytes, a path, a picture or a sound."
        )
