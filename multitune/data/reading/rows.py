"""What the text formats share: lines of UTF-8, names of columns, rows packed into Arrow."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa

from multitune.core.errors import DataError

MAX_LINE = 1 << 26  # bytes
MAX_COLUMNS = 4096
BATCH_ROWS = 16_384


def lines(path: Path, stream: BinaryIO) -> Iterator[str]:
    """The lines of a file, strict UTF-8, a byte order mark left out.

    Raises: DataError naming the line that is not UTF-8 or is too long.
    """
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


def check_columns(path: Path, names: Iterable[str]) -> None:
    """Refuse a column without a name, a name that is there twice, and columns without end."""
    seen: set[str] = set()
    for position, name in enumerate(names, 1):
        if not name.strip():
            raise DataError(str(path), f"column {position} has no name.", "Name it, or write the table without its index.")
        if name in seen:
            raise DataError(str(path), f'has the column "{name}" twice.', "Rename one of the two.")
        seen.add(name)
    if len(seen) > MAX_COLUMNS:
        raise DataError(str(path), f"has {len(seen):,} columns.", f"A table has at most {MAX_COLUMNS:,}.")


def packed(path: Path, rows: Iterable[Mapping[str, str | None]]) -> Iterator[pa.Table]:
    """Rows as Arrow tables, batch by batch; each has the columns known so far, in the order in which they first appear."""
    columns: dict[str, None] = {}
    each = iter(rows)
    while block := list(islice(each, BATCH_ROWS)):
        columns |= dict.fromkeys(name for row in block for name in row)
        check_columns(path, columns)
        yield pa.table({name: pa.array([row.get(name) for row in block], pa.large_string()) for name in columns})
