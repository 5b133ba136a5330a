"""Rows that are kept as they were prepared: the same batches, and only while nothing changed."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from multitune.core.ledger import Ledger
from multitune.core.randomness import derive, derive_each
from multitune.core.recipe import make_recipe
from multitune.data.loader import Loader
from multitune.data.plan import outline
from multitune.models.load import Weights
from multitune.models.plan import build_family


def loader(folder: Path, *, memo_bytes: int) -> Loader:
    rows = []
    for place in range(6):
        Image.fromarray(np.full((16, 16, 3), place * 20, np.uint8)).save(folder / f"{place}.png")
        rows.append({"image": f"{place}.png", "text": f"word {place}", "label": "ab"[place % 2]})
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    recipe = make_recipe(
        {
            "name": "kept",
            "task": "classification",
            "data": {
                "source": {"name": "table", "path": str(folder / "rows.jsonl")},
                "parts": {"image": "image", "text": "text", "label": "category"},
                "answers": ["label"],
                "split": {"train": 1.0, "valid": 0.0, "test": 0.0},
            },
            "model": {"name": "fusion_encoder", "towers": {"image": "tiny/image", "text": "tiny/text"}},
        }
    )
    data = outline(recipe, Ledger())
    family = build_family(recipe, data.needs, Weights("meta"))
    return Loader(data.examples["train"], family.preparer, seed=0, batch_size=3, memo_bytes=memo_bytes)


def pixels(made: Loader, stop: int) -> list[torch.Tensor]:
    return [batch.inputs["image"]["pixel_values"] for step in made.steps(0, stop) for _, batch in step.micro]


def test_batches_of_kept_rows_are_those_of_rows_made_anew(tmp_path: Path) -> None:
    kept, anew = (loader(tmp_path, memo_bytes=size) for size in (1 << 30, 0))
    for one, other in zip(kept.steps(0, 6), anew.steps(0, 6), strict=True):
        for (_, left), (_, right) in zip(one.micro, other.micro, strict=True):
            assert left.ids == right.ids
            assert torch.equal(left.answers["label"], right.answers["label"])
            for part, names in left.inputs.items():
                assert all(torch.equal(tensor, right.inputs[part][name]) for name, tensor in names.items())
    assert kept._work.kept is not None
    assert kept._work.kept.bytes > 0
    assert anew._work.kept is None


def test_a_kept_row_is_made_anew_when_its_file_changes(tmp_path: Path) -> None:
    made = loader(tmp_path, memo_bytes=1 << 30)
    before = pixels(made, 2)
    for place in range(6):
        Image.fromarray(np.full((16, 16, 3), 255, np.uint8)).save(tmp_path / f"{place}.png")
        os.utime(tmp_path / f"{place}.png", ns=(1, 10**18 + place))
    after = pixels(made, 2)
    assert not any(torch.equal(one, other) for one, other in zip(before, after, strict=True))


def test_many_integers_are_those_that_are_derived_one_by_one() -> None:
    keys = ["a", 'quote " and \\', "ümlaut", "", "id:7"]
    assert derive_each("split", 3, last=keys) == [derive("split", 3, key) for key in keys]
    assert derive_each(last=keys) == [derive(key) for key in keys]
