"""Tables as text: CSV, TSV, JSONL and Parquet become Arrow tables whose cells are exactly what was written.

Types come from the recipe, never from guessing: `007`, `NA` and `2020-01-01` survive. An empty CSV cell and a JSON null are
absent. Bytes stay bytes. Whatever does not parse is an error that names the file and the line.
"""

from __future__ import annotations

import io
import stat
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from multitune.core.errors import DataError
from multitune.data.reading import delimited, jsonl, parquet
from multitune.data.reading.rows import packed

VERSIONS = {"csv": 2, "tsv": 2, "jsonl": 1, "parquet": 1}  # raised with any change to what a cell becomes; part of every fingerprint
FORMATS = {".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet", ".pq": "parquet"}
SEPARATORS = {"csv": ",", "tsv": "\t"}  # between cells, where none is stated
REFUSED = {".pkl", ".pickle", ".joblib", ".npy", ".npz", ".pt", ".pth", ".dill"}
_PICKLES = (b"\x93NUMPY", *(b"\x80" + bytes([protocol]) for protocol in range(2, 6)))
_OTHERS = {b"PK\x03\x04": "a zip archive", b"\x1f\x8b": "gzip", b"\xff\xfe": "UTF-16 text", b"\xfe\xff": "UTF-16 text"}


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


def tables(path: Path, form: str, *, separator: str = "") -> Iterator[pa.Table]:
    """All rows of a table in order, in pieces; every column is large_string, large_binary, or a struct of bytes and path.

    A later piece may have columns that the pieces before it lack, after theirs.
    separator: between cells, where it is not the ending's.
    Raises: DataError naming the line that does not parse, an empty table, or a format that has no separator.
    """
    if separator and form not in SEPARATORS:
        raise DataError(str(path), f"is {form}, which has no separator.", "Leave separator out.")
    rows = 0
    for table in parquet.read(path) if form == "parquet" else _text(path, form, separator):
        rows += table.num_rows
        if table.num_rows:
            yield table
    if not rows:
        raise DataError(str(path), "holds no rows.", "Check that the file was written to its end.")


def line_of(path: Path, form: str, row: int, *, separator: str = "") -> int | None:
    """The line of a file on which a row (from 0) ends; None for a format without lines, and where that cannot be told any more."""
    if form == "parquet":
        return None
    try:
        with path.open("rb") as file:
            stream = _Counted(file.read())
            found = jsonl.rows(path, stream) if form == "jsonl" else delimited.rows(path, stream, separator or SEPARATORS[form])
            return next((stream.lines for place, cells in enumerate(found) if place == row and (form == "jsonl" or len(cells) > 1)), None)
    except (DataError, OSError):
        return None


class _Counted(io.BytesIO):
    """A file that counts the lines that were read of it."""

    lines = 0

    def readline(self, size: int | None = -1, /) -> bytes:
        """The next line."""
        self.lines += 1
        return super().readline(size)


def _text(path: Path, form: str, separator: str) -> Iterator[pa.Table]:
    with path.open("rb") as stream:
        rows = jsonl.rows(path, stream) if form == "jsonl" else delimited.rows(path, stream, separator or SEPARATORS[form])
        yield from packed(path, rows)
