"""The benchmark of many rows writes the same rows in each format, and sees what a process holds."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.rows import FORMATS, made, write
from benchmarks.rows.ours import Watch
from multitune.data.manifest import open_table


@pytest.mark.parametrize("form", FORMATS)
def test_each_format_holds_the_same_rows(tmp_path: Path, form: str) -> None:
    path = tmp_path / f"rows.{form}"
    write(path, 5)
    table = open_table(path, name="rows")
    assert [dict(table.row(place)) for place in range(len(table))] == list(made(5))
    assert [one.name for one in tmp_path.iterdir()] == [path.name]


def test_memory_that_a_process_takes_is_seen_as_private() -> None:
    watch = Watch()
    watch.look()
    before = watch.most["private"]
    held = b"x" * (64 << 20)
    watch.look()
    assert watch.most["private"] - before > len(held) // 2
