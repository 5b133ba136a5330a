"""The digits source: the scans as they are, with true words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from multitune.data.sources import digits
from multitune.data.sources.chimes.words import NUMBERS, VOCABULARY
from multitune.data.sources.digits import Digits, Options


def table(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "rows.jsonl").read_text("utf-8").splitlines()]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Digits(Options(path=tmp_path_factory.mktemp("written") / "digits")).folder()


def test_every_scan_is_kept_as_it_is(written: Path) -> None:
    rows, (scans, labels) = table(written), load_digits(return_X_y=True)
    assert len(rows) == len(scans) == 1797
    for row, scan, target in zip(rows, scans.reshape(-1, 8, 8), labels, strict=True):
        with Image.open(written / row["image"]) as picture:
            assert (picture.size, picture.mode) == ((8, 8), "L")
            assert np.array_equal(np.round(np.asarray(picture) * (16 / 255)), scan)
        assert (row["label"], row["number"]) == (str(target), target)


def test_captions_name_the_digit_in_words_of_the_vocabulary(written: Path) -> None:
    for row in table(written):
        said = set(row["caption"].split())
        assert said <= set(VOCABULARY)
        assert said & set(NUMBERS) == {NUMBERS[row["number"]]}


def test_the_wording_varies(written: Path) -> None:
    assert len({row["caption"] for row in table(written) if row["label"] == "7"}) >= 10


def test_read_gives_the_rows_of_the_table(written: Path) -> None:
    rows = digits.build(Options(path=written)).read()
    assert len(rows) == 1797
    assert set(rows.columns) == {"id", "image", "caption", "label", "number"}
