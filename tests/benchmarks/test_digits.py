"""The digits benchmark compares like with like."""

from __future__ import annotations

import numpy as np
from PIL import Image

from benchmarks.digits import RECIPE, by_id
from multitune.core import catalog
from multitune.core.ledger import Ledger
from multitune.core.recipe import read_recipe
from multitune.data import plan as data_plan


def test_the_logistic_regression_reads_the_pixels_and_answers_of_the_same_rows() -> None:
    rows = catalog.find("source", "digits").build().read()
    pixels, truth = by_id()
    assert {rows.id(index) for index in range(len(rows))} == set(pixels)
    for index in range(0, len(rows), 300):
        row = rows.row(index)
        assert rows.root is not None
        seen = np.asarray(Image.open(rows.root / row["image"]).convert("L"), np.float64).ravel()
        assert np.abs(seen - pixels[rows.id(index)] * 255 / 16).max() <= 0.5
        assert row["label"] == str(truth[rows.id(index)])


def test_another_seed_is_another_split_of_about_the_same_size() -> None:
    first, second = (data_plan.outline(read_recipe(RECIPE, [f"data.split.seed={seed}"]), Ledger()).examples["test"].ids for seed in (0, 1))
    assert set(first) != set(second)
    assert all(0.25 < len(ids) / 1797 < 0.35 for ids in (first, second))
