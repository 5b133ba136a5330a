"""What a run rests on: the same files and libraries go on, other ones are named."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from multitune.core.errors import RunError
from multitune.core.ledger import Ledger
from multitune.core.rundir import RunDir
from multitune.data import plan
from multitune.data.split import Examples
from multitune.tuning import basis
from tests.data.plain import picture_table, recipe

YEAR_NS = 10**9 * 3600 * 24 * 365


def splits(folder: Path, count: int = 40) -> Mapping[Any, Examples]:
    return plan.outline(recipe(picture_table(folder, count), split={}), Ledger()).examples


def age(path: Path) -> None:
    """Give a file a time stamp of a year ago."""
    stamp = path.stat().st_mtime_ns - YEAR_NS
    os.utime(path, ns=(stamp, stamp))


def test_the_same_files_go_on(tmp_path: Path) -> None:
    made, run = splits(tmp_path), RunDir(tmp_path / "run", None)
    basis.keep(made, run)
    before = (tmp_path / "run" / "basis.json").read_bytes()
    basis.keep(made, run)
    assert (tmp_path / "run" / "basis.json").read_bytes() == before


@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_a_picture_of_any_split_that_was_replaced_is_named_with_its_row(tmp_path: Path, split: str) -> None:
    made, run = splits(tmp_path), RunDir(tmp_path / "run", None)
    basis.keep(made, run)
    row = made[split].ids[1]
    age(tmp_path / f"{int(row[1:])}.png")
    with pytest.raises(RunError, match=rf"the image of row {row} \({split}\) is another file.*cp -a.*--fresh"):
        basis.keep(made, run)


def test_a_picture_that_is_gone_is_named(tmp_path: Path) -> None:
    made, run = splits(tmp_path), RunDir(tmp_path / "run", None)
    basis.keep(made, run)
    for row in made["train"].ids[2:4]:
        (tmp_path / f"{int(row[1:])}.png").unlink()
    with pytest.raises(RunError, match=f"row {made['train'].ids[2]} .train. and 1 more"):
        basis.keep(made, run)


def test_another_version_of_a_library_is_named(tmp_path: Path) -> None:
    made, run = splits(tmp_path), RunDir(tmp_path / "run", None)
    basis.keep(made, run)
    kept = json.loads((tmp_path / "run" / "basis.json").read_text())
    assert {"python", "torch", "transformers", "multitune"} <= kept["versions"].keys()
    kept["versions"]["torch"] = "2.0.0"
    run.write_json("basis.json", kept)
    with pytest.raises(RunError, match=r"began with torch 2\.0\.0, here is .*Install torch 2\.0\.0 again, or start anew"):
        basis.keep(made, run)


def test_a_picture_in_our_own_cache_may_be_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MULTITUNE_CACHE", str(tmp_path))
    made, run = splits(tmp_path), RunDir(tmp_path / "run", None)
    basis.keep(made, run)
    age(tmp_path / "3.png")
    basis.keep(made, run)
