"""The benchmark of gradient caching: what its sides are asked, and what it makes of their answers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks.contrastive import MICRO, OURS, PEER, SMALL, UNDIVIDED, compared, job, sides
from benchmarks.contrastive.agree import apart
from benchmarks.contrastive.ours import recipe
from multitune.core.recipe import TuningRow, make_recipe


def test_figures_are_ratios_of_medians() -> None:
    seconds, growth = {OURS: 3.0, UNDIVIDED: 2.0, PEER: 6.0}, {OURS: 12.0, UNDIVIDED: 90.0, PEER: 20.0}
    found = {side: [{"seconds": seconds[side], "growth": growth[side]}] for side in seconds}
    wanted = {"speedup": 2.0, "limit": 1.5, "memory": 1.2, "memory_undivided": 9.0, "memory_peer": 2.0}
    assert compared(found, {SMALL: [{"growth": 10.0}]}) == pytest.approx(wanted)


def test_every_side_has_the_same_batch_and_only_one_is_undivided() -> None:
    asked = {side.name: {"batch": 256, "micro": MICRO, **side.job} for side in sides(256, quick=False)}
    assert {one["batch"] for one in asked.values()} == {256}
    assert [name for name, one in asked.items() if one["micro"] != MICRO] == [UNDIVIDED]
    assert len(list(sides(256, quick=True))) == 3


def test_a_gradient_that_differs_is_found_and_one_that_is_missing_too() -> None:
    one = {"a": torch.tensor([3.0, 4.0]), "b": torch.tensor([1e-9])}
    assert apart(one, {"a": torch.tensor([3.0, 4.0]), "b": torch.tensor([0.0])}) < 1e-7  # of no size beside the whole
    assert apart(one, {"a": torch.tensor([3.0, 4.1]), "b": torch.tensor([1e-9])}) > 1e-2
    with pytest.raises(KeyError, match="only one has b"):
        apart(one, {"a": one["a"]})


def test_rows_and_the_model_follow_from_the_seed_and_the_recipe_holds_the_scale(tmp_path: Path) -> None:
    asked = job.written(tmp_path, 4)
    rows = [json.loads(line) for line in Path(asked["table"]).read_text("utf-8").splitlines()]
    assert [row["caption"] for row in rows] == [job.caption(number) for number in range(4)]
    made = make_recipe(recipe({**asked, "steps": 1, "batch": 4, "micro": 2, "threads": 1, "allocator": "auto"}))
    assert [row.rate for row in made.strategy if isinstance(row, TuningRow) and row.pattern == "scale"] == [0]
