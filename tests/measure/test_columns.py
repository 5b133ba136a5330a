"""A metric that names a column: found, or refused before anything is spent."""

from __future__ import annotations

from pathlib import Path

import pytest

import multitune
from multitune.core.errors import DataError
from tests.data.plain import picture_table


@pytest.mark.parametrize(
    ("evaluate", "words"),
    [
        ({"match": "labl"}, 'evaluate.match: there is no column "labl"; .*Did you mean "label"'),
        ({"match": "often"}, 'evaluate.match: row r0.. .(valid|test). has no "often"'),
    ],
)
def test_a_column_to_match_that_is_not_there_is_refused_by_the_plan(tmp_path: Path, evaluate: dict[str, str], words: str) -> None:
    table = picture_table(tmp_path, 40, often=lambda number: "x" if number % 2 else None)
    data = {"source": {"name": "table", "path": str(table)}, "parts": {"image": "image", "caption": "text"}}
    made = {"name": "x", "task": "retrieval", "data": data, "evaluate": evaluate}
    made["model"] = {"name": "dual_encoder", "towers": {"image": "tiny/image", "caption": "tiny/text"}}
    with pytest.raises(DataError, match=words):
        multitune.plan(made)


def test_a_column_that_a_caption_is_to_mention_is_looked_for_by_the_plan(tmp_path: Path) -> None:
    data = {"source": {"name": "table", "path": str(picture_table(tmp_path, 40))}, "parts": {"image": "image", "caption": "text"}}
    made = {"name": "x", "task": "captioning", "data": data | {"answers": ["caption"]}}
    made["model"] = {"name": "generative", "towers": {"image": "tiny/image"}, "lm": "tiny/lm"}
    made["evaluate"] = {"metrics": [{"name": "mentions", "columns": ["label", "colour"]}]}
    with pytest.raises(DataError, match=r'evaluate\.metrics\.mentions\.columns: there is no column "colour"'):
        multitune.plan(made)


def test_a_column_to_slice_by_that_is_not_there_is_refused_by_the_plan(tmp_path: Path) -> None:
    data = {"source": {"name": "table", "path": str(picture_table(tmp_path, 40))}, "parts": {"image": "image", "label": "category"}}
    made = {"name": "x", "task": "classification", "data": data | {"answers": ["label"]}, "evaluate": {"slices": ["label", "labe"]}}
    made["model"] = {"name": "fusion_encoder", "towers": {"image": "tiny/image"}}
    with pytest.raises(DataError, match=r'evaluate\.slices\.1: there is no column "labe"; .*Did you mean "label"'):
        multitune.plan(made)
