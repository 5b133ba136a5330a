"""A table on disk: JSONL, CSV, TSV or Parquet; every cell is read as text, and the recipe says what it is.

`007`, `NA` and dates survive. An empty cell (CSV) or null (JSONL, Parquet) is absent. Paths of media are relative to the table's folder.
Rows are named by the column `id`, else by file and row.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from multitune.core import catalog
from multitune.core.protocols import Rows, Source
from multitune.data.manifest import open_table


class Options(catalog.Options):
    """Which table."""

    path: Path = Field(description="A .jsonl, .csv, .tsv or .parquet file.")
    root: Path | None = Field(default=None, description="What relative paths of media are relative to; the table's folder by default.")
    id: str = Field(default="id", description="Column with a unique name for each row; empty: the rows are numbered.")
    separator: Literal["", ",", ";", "|", "\t"] = Field(default="", description="What stands between two cells; empty: by the ending.")


class Table:
    """The source."""

    def __init__(self, options: Options) -> None:
        self._options = options

    def read(self) -> Rows:
        """The rows of the table."""
        options = self._options
        return open_table(options.path, name=options.path.stem, root=options.root, id_column=options.id, separator=options.separator)


def build(options: Options) -> Source:
    """The source of these options."""
    return Table(options)
