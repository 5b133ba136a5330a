"""What the data room states and doubts before anything is spent."""

from __future__ import annotations

from pathlib import Path

from multitune.core.finding import Severity
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
    return make_recipe({"name": "x", "task": "classification", "data": data | {"max_loss": 0.3}})


def written(folder: Path, names: list[str]) -> Path:
    table = folder / "rows.csv"
    table.write_text("image,label\n" + "".join(f"{name},{'ab'[place % 2]}\n" for place, name in enumerate(names)))
    return table


def test_the_plan_says_which_file_the_rows_come_from(tmp_path: Path) -> None:
    asked = recipe(written(tmp_path, ["0.png", "1.png"]))
    values = state(asked, outline(asked, Ledger()))
    assert values["data.source.options"].value == {"path": str(tmp_path / "rows.csv")}


def doubted(folder: Path, names: list[str], *, there: int) -> list[tuple[str, Severity, str]]:
    for name in names[:there]:
        (folder / name).touch()
    found = outline(recipe(written(folder, names)), Ledger()).findings
    return [(finding.code, finding.severity, finding.message) for finding in found if finding.code.startswith("media-")]


def test_files_that_are_not_there_are_counted_with_the_first(tmp_path: Path) -> None:
    told = "2 of 3 files are in doubt, first rows.csv, line 3: 1.png is not there."
    assert doubted(tmp_path, ["0.png", "1.png", "2.png"], there=1) == [("media-absent", Severity.ERROR, told)]


def test_files_that_may_be_lost_are_a_warning(tmp_path: Path) -> None:
    assert [severity for _, severity, _ in doubted(tmp_path, ["0.png", "1.png", "2.png", "3.png"], there=3)] == [Severity.WARNING]


def test_the_ending_of_another_signal_is_a_warning(tmp_path: Path) -> None:
    told = "1 of 2 files are in doubt, first rows.csv, line 2: 0.wav has the ending of audio."
    assert doubted(tmp_path, ["0.wav", "1.png"], there=2) == [("media-ending", Severity.WARNING, told)]


def test_files_that_are_there_are_no_finding(tmp_path: Path) -> None:
    assert doubted(tmp_path, ["0.png", "1.png"], there=2) == []
