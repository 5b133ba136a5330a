"""Rows in memory: whatever they are given as, they are the samples of their table and stand in the request as a fingerprint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from multitune.core.errors import DataError
from multitune.core.recipe import make_recipe
from multitune.data.sources.rows import MemoryRows, held
from tests.data.plain import memory, of_texts, outlined, picture_table, recipe, texts


def test_rows_in_memory_give_the_samples_of_their_table(tmp_path: Path) -> None:
    table = outlined(recipe(picture_table(tmp_path, 6))).examples["train"]
    rows = [{**table.rows_of(n), "image": tmp_path / f"{n}.png"} for n in range(6)]
    found = outlined(recipe(memory(rows))).examples["train"]
    assert [found.sample(n).parts for n in range(6)] == [table.sample(n).parts for n in range(6)]


def test_rows_in_memory_stand_in_the_request_as_their_fingerprint() -> None:
    assert "memory" in str(of_texts(texts(3)).request())


class MapStyle:
    """A data set as many libraries have it: a length and rows by number."""

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> dict[str, Any]:
        return texts(6)[index]


class Frame(MapStyle):
    """What a DataFrame shows of itself: its library and its records, nothing being NaN there."""

    __module__ = "pandas.core.frame"

    def __init__(self, hole: int = -1) -> None:
        self.hole = hole

    def to_dict(self, form: str) -> list[dict[str, Any]]:
        return (
            [row | {"label": float("nan") if n == self.hole else row["label"]} for n, row in enumerate(texts(6))]
            if form == "records"
            else []
        )


def structured() -> np.ndarray:
    return np.array([tuple(row.values()) for row in texts(6)], dtype=[(name, "U9") for name in texts(1)[0]])


def in_memory_forms() -> list[Any]:
    arrow = pa.Table.from_pylist(texts(6))
    return [texts(6), tuple(texts(6)), arrow, arrow.to_batches()[0], structured(), MapStyle(), Frame()]


@pytest.mark.parametrize("given", in_memory_forms(), ids=lambda form: type(form).__name__)
def test_rows_may_be_given_in_any_form(given: Any) -> None:
    values = of_texts(texts(6)).model_dump(exclude_unset=True)
    values["data"]["source"] = {"name": "rows", "rows": given}
    made = make_recipe(values | {"data": held(values["data"])})
    asked = made.request()["data"]["source"]["options"]["rows"]
    assert asked == {"memory": MemoryRows.of(texts(6)).fingerprint, "rows": 6, "columns": ["id", "caption", "label"]}
    assert outlined(made).examples["train"].ids == [f"r{n}" for n in range(6)]


def test_what_is_nan_in_a_data_frame_is_absent() -> None:
    assert [len(MemoryRows.of(Frame(hole=3)).row(n)) for n in range(6)] == [3, 3, 3, 2, 3, 3]


def test_rows_are_held_wherever_a_source_stands() -> None:
    data = {"mix": [{"source": {"name": "rows", "rows": texts(2)}}], "split": {"sources": {"test": {"name": "rows", "rows": texts(3)}}}}
    made = held(data | {"join": {"key": "id", "sources": [{"name": "rows", "options": {"rows": texts(4)}}]}})
    found = [made["mix"][0]["source"]["rows"], made["split"]["sources"]["test"]["rows"], made["join"]["sources"][0]["options"]["rows"]]
    assert [len(rows) for rows in found if isinstance(rows, MemoryRows)] == [2, 3, 4]


def test_rows_that_were_in_memory_once_are_asked_for_again() -> None:
    gone = of_texts(texts(3)).request()["data"]["source"]
    with pytest.raises(DataError, match="not kept"):
        outlined(of_texts([], source=gone))
