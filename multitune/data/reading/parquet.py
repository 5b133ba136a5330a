"""Parquet, and Arrow tables in memory: columns cast to text, bytes left as bytes."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from multitune.core.errors import DataError
from multitune.data.reading.rows import check_columns

_BYTES_OR_PATH = pa.struct([("bytes", pa.large_binary()), ("path", pa.large_string())])


def read(path: Path) -> pa.Table:
    """The table in a Parquet file.

    Raises: DataError if it is not whole.
    """
    try:
        table = pq.ParquetFile(path).read()
    except (pa.ArrowException, OSError) as error:
        raise DataError(str(path), f"is no whole Parquet file ({str(error).splitlines()[0]:.120}).", "Write it again.") from None
    check_columns(path, table.column_names)
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
