"""A Manifest is a table on disk as `Rows`: read as text once, kept as Arrow, mapped, and reopened by its path in a worker."""

from __future__ import annotations

import bisect
import json
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from multitune.core.errors import DataError, did_you_mean
from multitune.core.rundir import write_atomic
from multitune.core.store import cache_root, folder_once, hash_file, key
from multitune.data import reading
from multitune.data.reading.rows import BATCH_ROWS
from multitune.data.sample import is_absent

KEPT, SEAL = "rows.arrow", "rows.sha256"
READ_AGAIN = 256 << 20  # bytes of a kept table up to which it is hashed whenever it is opened; a larger one where its file has changed
FIRST = 512  # cells that tell whether a column has few texts
SETTLED_SECONDS = 2.0  # a file younger than this may change again without a new time stamp; its hash is not remembered


class Manifest:
    """Rows of a table file: `row` gives column -> text (bytes where the file holds bytes), absent cells left out.

    A row's id is its cell in `id_column`; without that column it is `<file stem>:<row number from 1>`.
    """

    def __init__(self, *, name: str, kept: Path, root: Path, fingerprint: str, path: Path, id_column: str, separator: str = "") -> None:
        self.name, self.root, self.fingerprint, self.path = name, root, fingerprint, path
        self._kept, self._stem, self._id_column = kept, path.stem, id_column
        self._separator = separator
        self._batches: list[pa.RecordBatch] = []
        self._columns: list[list[pa.Array]] = []  # of each batch: asking a batch for them costs more than reading a row
        self._starts: list[int] = []
        self._open()

    def _open(self) -> None:
        try:
            with pa.memory_map(str(self._kept)) as source, pa.ipc.open_file(source) as reader:
                self._batches = [reader.get_batch(i) for i in range(reader.num_record_batches)]
        except (pa.ArrowException, OSError) as error:
            raise DataError(
                str(self._kept.parent), f"the kept table cannot be read ({type(error).__name__}).", "Remove this folder; it is made again."
            ) from None
        self._columns = [batch.columns for batch in self._batches]
        self._starts = [0]
        for batch in self._batches:
            self._starts.append(self._starts[-1] + batch.num_rows)
        self.columns: tuple[str, ...] = tuple(self._batches[0].schema.names)
        self._numbered = self._id_column not in self.columns

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in {"_batches", "_columns", "_starts"}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._open()

    def __len__(self) -> int:
        return self._starts[-1]

    def id(self, index: int) -> str:
        """The row's id, unique in this table."""
        if self._numbered:
            return f"{self._stem}:{index + 1}"
        number, offset = self._place(index)
        return str(self._columns[number][self.columns.index(self._id_column)][offset].as_py())

    def ids(self) -> Iterator[str]:
        """The ids of all rows in order, a batch of them in memory at a time."""
        if self._numbered:
            return (f"{self._stem}:{number}" for number in range(1, len(self) + 1))
        return (str(cell) for batch in self._batches for cell in batch.column(self._id_column).to_pylist())

    def place(self, index: int) -> str:
        """Where a person finds the row: file and line, and its id where it has one of its own."""
        line = reading.line_of(self.path, reading.FORMATS[self.path.suffix.lower()], index, separator=self._separator)
        where = f"line {line}" if line is not None else f"row {index + 1}"
        return f"{self.path.name}, {where}" + ("" if self._numbered else f" ({self.id(index)})")

    def row(self, index: int) -> Mapping[str, Any]:
        """Column -> text or bytes; absent cells are left out."""
        number, offset = self._place(index)
        cells = ((name, _value(column[offset].as_py())) for name, column in zip(self.columns, self._columns[number], strict=True))
        return {name: value for name, value in cells if value is not None}

    def column(self, name: str) -> Sequence[Any]:
        """All cells of a column in order, None where absent.

        Raises: DataError if there is no such column.
        """
        return list(self.cells(name))

    def cells(self, name: str) -> Iterator[Any]:
        """The cells of a column as `column` has them, a batch of them in memory at a time.

        Raises: DataError if there is no such column.
        """
        if name not in self.columns:
            raise DataError(self.name, f'has no column "{name}"; there are {", ".join(self.columns)}.', did_you_mean(name, self.columns))
        return (cell for batch in self._batches for cell in _cells(batch.column(name)))

    def paths(self, name: str, *, limit: int) -> Iterator[str | None]:
        """What the first `limit` cells of a column name as a file; None where they hold bytes or nothing. Bytes are not read."""
        for start, batch in zip(self._starts, self._batches, strict=False):
            yield from _paths(batch.column(name).slice(0, max(0, limit - start)))

    def present(self, name: str) -> np.ndarray:
        """Whether each row has something in a column, bool (rows,); bytes are not read.

        Raises: DataError if there is no such column.
        """
        if name not in self.columns:
            raise DataError(self.name, f'has no column "{name}"; there are {", ".join(self.columns)}.', did_you_mean(name, self.columns))
        return np.concatenate([_present(batch.column(name)) for batch in self._batches])

    def _place(self, index: int) -> tuple[int, int]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        number = bisect.bisect_right(self._starts, index) - 1
        return number, index - self._starts[number]


def open_table(path: Path | str, *, name: str, root: Path | None = None, id_column: str = "id", separator: str = "") -> Manifest:
    """The rows of a .csv, .tsv, .jsonl or .parquet file.

    root: what relative media paths are relative to; by default the table's folder. id_column: empty numbers the rows; a column
    other than `id` must be there. separator: what stands between the cells of a text table; empty: by the ending. The text is kept
    once for equal content, so a second opening parses nothing; that its ids are unique is looked at once too. What was kept is read anew
    where it has not the bytes that were written.

    Raises: DataError naming the file and line for whatever does not parse, for no rows, an id that is missing or there twice.
    """
    path = Path(path)
    form = reading.table_format(path)
    content = _remembered_hash(path)
    parts = {"sha256": content, "reader": reading.VERSIONS[form], "format": form} | ({"separator": separator} if separator else {})
    folder = _kept_folder(parts, lambda: reading.tables(path, form, separator=separator))
    manifest = Manifest(
        name=name,
        kept=folder / KEPT,
        root=(root if root is not None else path.parent).resolve(),
        fingerprint=key(parts),
        path=path,
        id_column=id_column,
        separator=separator,
    )
    folder_once("ids", parts | {"id_column": id_column}, lambda draft: _check_ids(manifest, id_column, where=str(path)))
    return manifest


def _kept_folder(parts: Mapping[str, object], tables: Callable[[], Iterator[pa.Table]]) -> Path:
    """The folder of a kept table, made anew where its bytes are not those that were written."""

    def write(draft: Path) -> None:
        _keep(tables(), draft / KEPT)
        (draft / SEAL).write_text(hash_file(draft / KEPT), "ascii")

    folder = folder_once("tables", {**parts, "sealed": True}, write)
    if _as_written(folder):
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    return folder_once("tables", {**parts, "sealed": True}, write)


def _as_written(folder: Path) -> bool:
    """Whether a kept table is what its seal says."""
    kept = folder / KEPT
    try:
        found = hash_file(kept) if kept.stat().st_size <= READ_AGAIN else _remembered_hash(kept)
        return found == (folder / SEAL).read_text("ascii")
    except (OSError, ValueError):
        return False


def check_unique(ids: Callable[[], Iterable[Any]], *, where: str) -> None:
    """Refuse an absent id and an id that is there twice. ids: gives them all, as often as it is asked.

    Raises: DataError naming the rows, counted from 1.
    """
    if _surely_unique(ids()):
        return
    first: dict[str, int] = {}
    for number, row_id in enumerate(ids(), 1):
        if row_id is None or str(row_id) == "":
            raise DataError(f"{where}, row {number}", "has no id.", "Give each row an id, or none.")
        if (earlier := first.setdefault(str(row_id), number)) != number:
            raise DataError(where, f'the id "{row_id}" is in row {earlier} and in row {number}.', "Give each row an id of its own.")


def _surely_unique(ids: Iterable[Any]) -> bool:
    """Whether no two of their hashes are equal and none may be absent: eight bytes a row, where the ids themselves take a hundred."""
    hashes = np.fromiter(map(hash, ids), dtype=np.int64)
    hashes.sort()
    absent = any(bool((hashes == hash(nothing)).any()) for nothing in (None, ""))
    return not absent and not bool((hashes[1:] == hashes[:-1]).any())


def _check_ids(manifest: Manifest, id_column: str, *, where: str) -> None:
    if id_column in manifest.columns:
        check_unique(lambda: manifest.cells(id_column), where=where)
    elif id_column not in {"", "id"}:
        raise DataError(where, f'has no column "{id_column}" for the ids.', did_you_mean(id_column, manifest.columns))


def _value(cell: Any) -> Any:
    """A cell as `Rows` gives it: of a struct, the bytes where there are any, else the path; an empty text is absent."""
    if isinstance(cell, dict):
        cell = cell["bytes"] if cell["bytes"] is not None else cell["path"]
    return None if cell == "" else cell


def _cells(column: pa.Array) -> list[Any]:
    """All cells of a column as `Rows` gives them; of a column with few texts equal ones are one object, and each is made once."""
    if not _has_few(column):
        return [_value(cell) for cell in column.to_pylist()]
    coded = column.dictionary_encode()
    words = [*map(_value, coded.dictionary.to_pylist()), None]
    places = coded.indices.fill_null(len(words) - 1).to_pylist()
    return [words[place] for place in places]


def _has_few(column: pa.Array) -> bool:
    """Whether the first cells of a column of texts are few texts."""
    texts = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
    return texts and len(column) > FIRST and 2 * len(column.slice(0, FIRST).unique()) < FIRST


def _paths(column: pa.Array) -> Iterator[str | None]:
    if pa.types.is_struct(column.type):
        inside = column.field("bytes").is_valid().to_pylist()
        yield from (None if held else path for held, path in zip(inside, column.field("path").to_pylist(), strict=True))
    elif pa.types.is_large_binary(column.type):
        yield from (None for _ in range(len(column)))
    else:
        yield from (None if is_absent(cell) else cell for cell in column.to_pylist())


def _present(column: pa.Array) -> np.ndarray:
    if pa.types.is_struct(column.type):
        return _present(column.field("bytes")) | _present(column.field("path"))
    if pa.types.is_large_binary(column.type):
        return np.asarray(column.is_valid())
    if _has_few(column):
        coded = column.dictionary_encode()
        filled = np.array([*(not is_absent(word) for word in coded.dictionary.to_pylist()), False])
        return filled[coded.indices.fill_null(len(filled) - 1).to_numpy(zero_copy_only=False)]
    return np.array([not is_absent(cell) for cell in column.to_pylist()], dtype=bool)


def _keep(tables: Iterator[pa.Table], path: Path) -> None:
    """Write the pieces as one file; where one brings a new column, those before it are written again, empty in it."""
    table = next(tables, None)
    before: Path | None = None
    while table is not None:
        schema, draft = table.schema, path.with_name(f"{path.name}.{len(table.schema)}")
        with pa.OSFile(str(draft), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
            if before is not None:
                _again(before, schema, writer)
                before.unlink()
            while table is not None and table.schema.equals(schema):
                writer.write_table(table, max_chunksize=BATCH_ROWS)
                table = next(tables, None)
        before = draft
    if before is not None:
        before.replace(path)
    pa.default_memory_pool().release_unused()


def _again(path: Path, schema: pa.Schema, writer: Any) -> None:
    """The batches of a file with the columns that it lacks, all absent there."""
    with pa.memory_map(str(path)) as source, pa.ipc.open_file(source) as reader:
        for number in range(reader.num_record_batches):
            batch = reader.get_batch(number)
            known = {name: batch.column(name) for name in batch.schema.names}
            arrays = [known.get(one.name, pa.nulls(batch.num_rows, one.type)) for one in schema]
            writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=schema))


def _remembered_hash(path: Path) -> str:
    """The sha256 of a file, remembered by path, size, time stamp, last change and inode; a file that has just changed is read."""
    status = path.stat()
    stamp = {"size": status.st_size, "mtime_ns": status.st_mtime_ns, "ctime_ns": status.st_ctime_ns, "inode": status.st_ino}
    note = cache_root() / "hashes" / f"{key({'path': str(path.resolve())})[:20]}.json"
    found = _note(note)
    if found.get("stamp") == stamp:
        return str(found["sha256"])
    content = hash_file(path)
    if time.time() - max(status.st_mtime, status.st_ctime) > SETTLED_SECONDS:
        write_atomic(note, json.dumps({"stamp": stamp, "sha256": content}).encode())
    return content


def _note(path: Path) -> Mapping[str, Any]:
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) and isinstance(found.get("sha256"), str) else {}
