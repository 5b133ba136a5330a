"""Parquet, and Arrow tables in memory: columns cast to text, bytes left as bytes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from multitune.core.errors import DataError
from multitune.data.reading.rows import BATCH_ROWS, check_columns

PIECE_BYTES = 64 << 20
_BYTES_OR_PATH = pa.struct([("bytes", pa.large_binary()), ("path", pa.large_string())])


def read(path: Path) -> Iterator[pa.Table]:
    """The table in a Parquet file, in pieces of about `PIECE_BYTES`: a file of media may be larger than the memory.

    Raises: DataError if it is not whole.
    """
    try:
        with pq.ParquetFile(path, pre_buffer=False) as file:
            check_columns(path, file.schema_arrow.names)
            size = sum(file.metadata.row_group(number).total_byte_size for number in range(file.num_row_groups))
            rows = min(BATCH_ROWS, max(1, PIECE_BYTES * file.metadata.num_rows // max(size, 1)))
            for batch in file.iter_batches(batch_size=rows, use_threads=False):  # each thread would keep memory of its own
                yield as_text(pa.Table.from_batches([batch]), where=str(path))
    except (pa.ArrowException, OSError) as error:
        raise DataError(str(path), f"is no whole Parquet file ({str(error).splitlines()[0]:.120}).", "Write it again.") from None


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
        return pa.chunked_array([_bytes_or_path(chunk) for chunk in column.chunks], _BYTES_OR_PATH)
    if pa.types.is_nested(kind):
        texts = [None if cell is None else json.dumps(cell, ensure_ascii=False, default=str) for cell in column.to_pylist()]
        return pa.chunked_array([pa.array(texts, pa.large_string())])
    return column.cast(pa.large_string())


def _bytes_or_path(column: pa.StructArray) -> pa.StructArray:
    """A struct of bytes and path in the one form, its fields in order, nothing made a Python object."""
    fields = [column.field(name).cast(kind) for name, kind in (("bytes", pa.large_binary()), ("path", pa.large_string()))]
    return pa.StructArray.from_arrays(fields, fields=list(_BYTES_OR_PATH), mask=column.is_null())
