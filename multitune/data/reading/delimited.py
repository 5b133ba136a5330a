"""CSV and TSV: strict quotes, as many cells in each line as in the header, empty cells absent.

A line without anything is passed over; in a table of one column it is a row whose cell is empty, but at the end of the file.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from multitune.core.errors import DataError
from multitune.data.reading.rows import MAX_LINE, check_columns, lines

SEPARATORS = {";": '";"', "\t": "tabs", "|": '"|"', ",": "commas"}


def looks_separated(header: Sequence[str]) -> str:
    """What would do where a header of one column looks separated by something else than was read; else empty."""
    marks = [mark for mark in SEPARATORS if len(header) == 1 and mark in header[0]]
    if not marks:
        return ""
    named = SEPARATORS[marks[0]]
    return f"The header looks separated by {named}: state the source's separator, or save the table with commas as .csv."


def rows(path: Path, stream: BinaryIO, delimiter: str) -> Iterator[Mapping[str, str | None]]:
    """The rows below the header.

    Raises: DataError naming the line that does not parse.
    """
    reader = csv.reader(lines(path, stream), delimiter=delimiter, strict=True)
    limit = csv.field_size_limit(MAX_LINE)
    try:
        header = next(reader, None)
        if header is None:
            raise DataError(str(path), "is empty.", "A table has a header line and rows.")
        check_columns(path, header)
        empty = 0
        for cells in reader:
            if not cells and len(header) == 1:  # a cell that is empty, or the end of the file
                empty += 1
                continue
            yield from ({header[0]: None} for _ in range(empty))
            empty = 0
            if cells and len(cells) != len(header):
                remedy = looks_separated(header) or "Mend the line."
                raise DataError(f"{path}, line {reader.line_num}", f"has {len(cells)} cells, the header {len(header)}.", remedy)
            if cells:
                yield {name: cell or None for name, cell in zip(header, cells, strict=True)}
    except csv.Error as error:
        problem = "a lone carriage return" if "new-line" in str(error) else str(error)
        raise DataError(f"{path}, line {reader.line_num}", f"does not parse ({problem}).", "Mend the line's quotes.") from None
    finally:
        csv.field_size_limit(limit)
