"""Tables as text: CSV, TSV, JSONL and Parquet become Arrow tables whose cells are exactly what was written.

Types come from the recipe, never from guessing: `007`, `NA` and `2020-01-01` survive. An empty CSV cell and a JSON null are
absent. Bytes stay bytes. Whatever does not parse is an error that names the file and the line.
"""

from __future__ import annotations

import csv
import json
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from multitune.core.errors import DataError

VERSION = 1  # raised with any change to what a cell becomes; part of every fingerprint
MAX_LINE = 1 << 26  # bytes
MAX_COLUMNS = 4096
BATCH_ROWS = 16_384
FORMATS = {".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet", ".pq": "parquet"}
REFUSED = {".pkl", ".pickle", ".joblib", ".npy", ".npz", ".pt", ".pth", ".dill"}
_PICKLES = (b"\x93NUMPY", *(b"\x80" + bytes([protocol]) for protocol in range(2, 6)))
_OTHERS = {b"PK\x03\x04": "a zip archive", b"\x1f\x8b": "gzip", b"\xff\xfe": "UTF-16 text", b"\xfe\xff": "UTF-16 text"}
_BYTES_OR_PATH = pa.struct([("bytes", pa.large_binary()), ("path", pa.large_string())])


class _Number(str):
    """A JSON number as it was written."""


def table_format(path: Path) -> str:
    """`csv`, `tsv`, `jsonl` or `parquet`, by the file's ending and its first bytes; opens nothing but a regular file.

    Raises: DataError if there is no such file, or it is none of these.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise DataError(str(path), "there is no such file." if isinstance(error, FileNotFoundError) else f"{error.strerror}.") from None
    if not stat.S_ISREG(status.st_mode):
        raise DataError(str(path), "is not a regular file.", "Name a .csv, .tsv, .jsonl or .parquet file.")
    suffix = path.suffix.lower()
    if suffix in REFUSED:
        raise DataError(str(path), f"is a {suffix} file, which can run code when it is read.", "Save the table as .parquet or .jsonl.")
    if suffix not in FORMATS:
        hint = "Write one object a line into a .jsonl file." if suffix == ".json" else "Name a .csv, .tsv, .jsonl or .parquet file."
        raise DataError(str(path), f'the ending "{suffix}" is none that a table has.', hint)
    with path.open("rb") as stream:
        head = stream.read(8)
    if head.startswith(_PICKLES):
        raise DataError(str(path), "holds a pickle, which can run code when it is read.", "Save the table as .parquet or .jsonl.")
    for magic, what in _OTHERS.items():
        if head.startswith(magic):
            raise DataError(str(path), f"holds {what}.", "Save the table as UTF-8 text or as .parquet.")
    if (FORMATS[suffix] == "parquet") != head.startswith(b"PAR1"):
        raise DataError(str(path), f"does not hold what the ending {suffix} says.", "Give it the ending of its format.")
    return FORMATS[suffix]


def read_table(path: Path, form: str) -> pa.Table:
    """All rows of a table; every column is large_string, large_binary, or a struct of bytes and path.

    Raises: DataError naming the line that does not parse, or an empty table.
    """
    if form == "parquet":
        table = _parquet(path)
    else:
        with path.open("rb") as stream:
            rows = _jsonl(path, stream) if form == "jsonl" else _csv(path, stream, "\t" if form == "tsv" else ",")
            table = _gathered(path, rows)
    if table.num_rows == 0:
        raise DataError(str(path), "holds no rows.", "Check that the file was written to its end.")
    return table


def _lines(path: Path, stream: BinaryIO) -> Iterator[str]:
    number = 0
    while data := stream.readline(MAX_LINE + 1):
        number += 1
        if len(data) > MAX_LINE:
            raise DataError(f"{path}, line {number}", f"is longer than {MAX_LINE:,} bytes.", "Check the file's line ends.")
        if number == 1:
            data = data.removeprefix(b"\xef\xbb\xbf")
        try:
            yield data.decode("utf-8")
        except UnicodeDecodeError as error:
            raise DataError(
                f"{path}, line {number}", f"is not UTF-8 text (byte 0x{data[error.start]:02x}).", "Save the file as UTF-8."
            ) from None


def _csv(path: Path, stream: BinaryIO, delimiter: str) -> Iterator[Mapping[str, str]]:
    reader = csv.reader(_lines(path, stream), delimiter=delimiter, strict=True)
    limit = csv.field_size_limit(MAX_LINE)
    try:
        header = next(reader, None)
        if header is None:
            raise DataError(str(path), "is empty.", "A table has a header line and rows.")
        _check_columns(path, header)
        for cells in reader:
            if cells and len(cells) != len(header):
                raise DataError(f"{path}, line {reader.line_num}", f"has {len(cells)} cells, the header {len(header)}.", "Mend the line.")
            if cells:
                yield {name: cell for name, cell in zip(header, cells, strict=True) if cell}
    except csv.Error as error:
        problem = "a lone carriage return" if "new-line" in str(error) else str(error)
        raise DataError(f"{path}, line {reader.line_num}", f"does not parse ({problem}).", "Mend the line's quotes.") from None
    finally:
        csv.field_size_limit(limit)


def _check_columns(path: Path, names: Iterable[str]) -> None:
    seen: set[str] = set()
    for position, name in enumerate(names, 1):
        if not name.strip():
            raise DataError(str(path), f"column {position} has no name.", "Name it, or write the table without its index.")
        if name in seen:
            raise DataError(str(path), f'has the column "{name}" twice.', "Rename one of the two.")
        seen.add(name)
    if len(seen) > MAX_COLUMNS:
        raise DataError(str(path), f"has {len(seen):,} columns.", f"A table has at most {MAX_COLUMNS:,}.")


def _jsonl(path: Path, stream: BinaryIO) -> Iterator[Mapping[str, str]]:
    decoder = json.JSONDecoder(object_pairs_hook=_object, parse_int=_Number, parse_float=_Number, parse_constant=_no_constant)
    for number, line in enumerate(_lines(path, stream), 1):
        text = line.strip()
        if not text:
            continue
        try:
            found = decoder.decode(text)
            if not isinstance(found, dict):
                raise json.JSONDecodeError("is no object {...}", text, 0)
            yield {str(name): _cell(value) for name, value in found.items() if value is not None}
        except RecursionError:
            raise DataError(f"{path}, line {number}", "is nested too deep.", "Flatten it.") from None
        except ValueError as error:
            problem = f"{error.msg} at character {error.pos + 1}" if isinstance(error, json.JSONDecodeError) else str(error)
            raise DataError(f"{path}, line {number}", f"{problem}.", "Each line is one JSON object.") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))
        raise ValueError(f'has the key "{twice}" twice')
    return made


def _no_constant(text: str) -> Any:
    raise ValueError(f"holds {text}, which is no JSON number")


def _cell(value: Any) -> str:
    """The text of a JSON value: strings and numbers as written, the rest as JSON. A lone surrogate, which no file can hold,
    becomes NUL, which `align` takes out and records."""
    if isinstance(value, str):
        return str(value) if value.isascii() or not _has_surrogate(value) else "".join("\0" if _is_surrogate(c) else c for c in value)
    return _json(value)


def _has_surrogate(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return True
    return False


def _is_surrogate(character: str) -> bool:
    return "\ud800" <= character <= "\udfff"


def _json(value: Any) -> str:
    if isinstance(value, _Number):
        return str(value)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_json(str(k))}: {_json(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_json(v) for v in value) + "]"
    if isinstance(value, str):
        return json.dumps(_cell(value), ensure_ascii=False)
    return "null" if value is None else "true" if value is True else "false"


def _gathered(path: Path, rows: Iterable[Mapping[str, str]]) -> pa.Table:
    """Rows as one Arrow table, packed batch by batch; columns in the order in which they first appear."""
    columns: dict[str, list[pa.Array]] = {}
    sizes: list[int] = []
    block: list[Mapping[str, str]] = []

    def pack() -> None:
        for name in dict.fromkeys(name for row in block for name in row):
            if name not in columns:
                columns[name] = [pa.nulls(size, pa.large_string()) for size in sizes]
        _check_columns(path, columns)
        for name, arrays in columns.items():
            arrays.append(pa.array([row.get(name) for row in block], pa.large_string()))
        sizes.append(len(block))
        block.clear()

    for row in rows:
        block.append(row)
        if len(block) == BATCH_ROWS:
            pack()
    if block:
        pack()
    return pa.table({name: pa.chunked_array(arrays, pa.large_string()) for name, arrays in columns.items()})


def _parquet(path: Path) -> pa.Table:
    try:
        table = pq.ParquetFile(path).read()
    except (pa.ArrowException, OSError) as error:
        raise DataError(str(path), f"is no whole Parquet file ({str(error).splitlines()[0]:.120}).", "Write it again.") from None
    _check_columns(path, table.column_names)
    return as_text(table, where=str(path))


def as_text(table: pa.Table, *, where: str) -> pa.Table:
    """An Arrow table with every column as text, as bytes, or as a struct of bytes and path.

    Raises: DataError for a column that has no text form.
    """
    try:
        return pa.table({name: _text_column(column) for name, column in zip(table.column_names, table.columns, strict=True)})
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise DataError(where, f"a column has no text form ({str(error).splitlines()[0]:.120}).", "Save it as text.") from None


def _text_column(column: pa.ChunkedArray) -> pa.ChunkedArray:
    kind = column.type
    if pa.types.is_dictionary(kind):
        return _text_column(column.cast(kind.value_type))
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind):
        return column.cast(pa.large_binary())
    if pa.types.is_struct(kind) and {field.name for field in kind} == {"bytes", "path"}:
        cells = [None if cell is None else {"bytes": cell["bytes"], "path": cell["path"]} for cell in column.to_pylist()]
        return pa.chunked_array([pa.array(cells, _BYTES_OR_PATH)])
    if pa.types.is_nested(kind):
        texts = [None if cell is None else json.dumps(cell, ensure_ascii=False, default=str) for cell in column.to_pylist()]
        return pa.chunked_array([pa.array(texts, pa.large_string())])
    return column.cast(pa.large_string())
