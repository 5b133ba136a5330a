"""What the data room states and doubts before anything is spent."""

from __future__ import annotations

from pathlib import Path

from multitune.core.ledger import Ledger
from multitune.core.recipe import Recipe, make_recipe
from multitune.data.plan import outline, state


def recipe(table: Path) -> Recipe:
    parts = {"image": "image", "label": "category"}
    data = {
        "source": {"name": "table", "path": table},
        "parts": parts,
        "answers": ["label"],
        "split": {"train": 1.0, "valid": 0, "test": 0},
    }
    return make_recipe({"name": "x", "task": "classification", "data": data})


def written(folder: Path, names: list[str]) -> Path:
    table = folder / "rows.csv"
    table.write_text("image,label\n" + "".join(f"{name},{'ab'[place % 2]}\n" for place, name in enumerate(names)))
    return table


def test_the_plan_says_which_file_the_rows_come_from(tmp_path: Path) -> None:
    asked = recipe(written(tmp_path, ["0.png", "1.png"]))
    values = state(asked, outline(asked, Ledger()))
    assert values["data.source.options"].value == {"path": str(tmp_path / "rows.csv")}
