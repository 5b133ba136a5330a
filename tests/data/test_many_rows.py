"""What a table costs in memory is a few bytes a row, however long its cells are; and what is read piece by piece is the same."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from multitune.core.errors import DataError
from multitune.core.ledger import Ledger
from multitune.core.recipe import Recipe, make_recipe
from multitune.data import reading
from multitune.data.loader import order_of
from multitune.data.manifest import open_table
from multitune.data.order import Slices
from multitune.data.plan import outline
from multitune.data.reading import rows as packing

BYTES_A_ROW = 67  # 64 MB for a million rows


def recipe(path: Path, **split: Any) -> Recipe:
    data = {"source": {"name": "table", "path": str(path)}, "parts": {"text": "text", "label": "category"}, "answers": ["label"]}
    return make_recipe({"name": "x", "task": "classification", "data": {**data, "split": split}})


def written(folder: Path, rows: int) -> Path:
    path = folder / f"{rows}.csv"
    lines = (f"row-{number},some words that are row {number}'s,{'ab'[number % 2]}" for number in range(rows))
    path.write_text("\n".join(["id,text,label", *lines]) + "\n", "utf-8")
    return path


def peak(path: Path) -> int:
    """Bytes that Python and numpy held at most while the data were read, split and put in order."""
    made = recipe(path, train=0.9, valid=0.05, test=0.05)
    tracemalloc.start()
    found = outline(made, Ledger())
    order = order_of(found.examples["train"], seed=0, batch_size=8, micro_batch=0, balance="")
    assert len(next(order.steps(0, 1))[2]) == 8
    bytes_at_most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return bytes_at_most


def test_more_rows_take_a_few_bytes_each(tmp_path: Path) -> None:
    few, many = (written(tmp_path, rows) for rows in (20_000, 60_000))
    for path in (few, many):
        peak(path)  # the tables are in the cache, and what is imported is
    assert (peak(many) - peak(few)) / 40_000 < BYTES_A_ROW


def test_a_column_that_a_later_piece_brings_is_absent_in_the_earlier_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "BATCH_ROWS", 2)
    lines = ['{"a": 1}', '{"a": 2}', '{"b": "x", "a": 3}', '{"c": true}', '{"a": 5}']
    path = tmp_path / "t.jsonl"
    path.write_text("\n".join(lines) + "\n", "utf-8")
    assert [table.num_rows for table in reading.tables(path, "jsonl")] == [2, 2, 1]
    table = open_table(path, name="t")
    assert table.columns == ("a", "b", "c")
    assert [table.column(name) for name in table.columns] == [
        ["1", "2", "3", None, "5"],
        [None, None, "x", None, None],
        [None] * 3 + ["true", None],
    ]
    assert [dict(table.row(place)) for place in (0, 3)] == [{"a": "1"}, {"c": "true"}]


@pytest.mark.parametrize(("rows", "size"), [(10, 3), (9, 3), (2, 5)])
def test_an_order_is_cut_as_a_list_would_be(rows: int, size: int) -> None:
    order = np.random.default_rng(0).permutation(rows)
    plain = [order[start : start + size].tolist() for start in range(0, rows, size)]
    cut = Slices(order, size)
    assert [batch.tolist() for batch in cut] == plain
    assert cut[-1].tolist() == plain[-1]
    assert [batch.tolist() for batch in cut[:-1]] == plain[:-1]
    assert np.concatenate(cut).tolist() == order.tolist()
    with pytest.raises(IndexError):
        cut[len(plain)]


def test_an_id_that_is_there_twice_is_found_among_many(tmp_path: Path) -> None:
    path = written(tmp_path, 30)
    path.write_text(path.read_text("utf-8") + "row-7,again,a\n", "utf-8")
    with pytest.raises(DataError, match='the id "row-7" is in row 8 and in row 31'):
        outline(recipe(path), Ledger())
