"""Rows that are kept as they were prepared: the same batches, and only while nothing changed."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from multitune.core.ledger import Ledger
from multitune.core.protocols import Part, Sample
from multitune.core.randomness import derive, derive_each
from multitune.core.recipe import make_recipe
from multitune.data import split
from multitune.data.loader import Loader
from multitune.data.plan import outline
from multitune.data.split import KNOWN_SAMPLE_BYTES
from multitune.data.workers.memo import Kept, Ready
from multitune.models.load import Weights
from multitune.models.plan import build_family
from tests.data.plain import picture, png


def in_files(folder: Path) -> Path:
    """A table of pictures in files."""
    rows = []
    for place in range(6):
        Image.fromarray(np.full((16, 16, 3), place * 20, np.uint8)).save(folder / f"{place}.png")
        rows.append({"image": f"{place}.png", "text": f"word {place}", "label": "ab"[place % 2]})
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return folder / "rows.jsonl"


def inside(folder: Path) -> Path:
    """A table that holds its pictures, of some 190 kB each."""
    rows = [{"image": png(picture(n, side=250)), "text": f"word {n}", "label": "ab"[n % 2]} for n in range(6)]
    pq.write_table(pa.Table.from_pylist(rows), folder / "rows.parquet")
    return folder / "rows.parquet"


def wordy(folder: Path) -> Path:
    """A table of small pictures, with a column of long texts."""
    rows = [{"image": png(picture(n)), "text": f"word {n}", "label": "ab"[n % 2], "notes": f"{n} " * 9_000} for n in range(6)]
    pq.write_table(pa.Table.from_pylist(rows), folder / "rows.parquet")
    return folder / "rows.parquet"


def loader(table: Path, *, memo_bytes: int) -> Loader:
    recipe = make_recipe(
        {
            "name": "kept",
            "task": "classification",
            "data": {
                "source": {"name": "table", "path": str(table)},
                "parts": {"image": "image", "text": "text", "label": "category"},
                "answers": ["label"],
                "split": {"train": 1.0, "valid": 0.0, "test": 0.0},
            },
            "model": {"name": "fusion_encoder", "towers": {"image": "tiny/image", "text": "tiny/text"}},
        }
    )
    data = outline(recipe, Ledger())
    family = build_family(recipe, data.needs, Weights("meta"))
    return Loader(data.examples["train"], family.preparer, seed=0, batch_size=3, memo_bytes=memo_bytes, compared=["image"])


def pixels(made: Loader, stop: int) -> list[torch.Tensor]:
    return [batch.inputs["image"]["pixel_values"] for step in made.steps(0, stop) for _, batch in step.micro]


@pytest.mark.parametrize("write", [in_files, inside])
def test_batches_of_kept_rows_are_those_of_rows_made_anew(tmp_path: Path, write: Callable[[Path], Path]) -> None:
    kept, anew = (loader(write(tmp_path), memo_bytes=size) for size in (1 << 30, 0))
    for one, other in zip(kept.steps(0, 6), anew.steps(0, 6), strict=True):
        for (_, left), (_, right) in zip(one.micro, other.micro, strict=True):
            assert left.ids == right.ids
            assert torch.equal(left.answers["label"], right.answers["label"])
            assert torch.equal(left.contents["image"], right.contents["image"])
            for part, names in left.inputs.items():
                assert all(torch.equal(tensor, right.inputs[part][name]) for name, tensor in names.items())
    assert kept._work.kept is not None
    assert kept._work.kept.bytes > 0
    assert anew._work.kept is None


def test_a_kept_row_is_made_anew_when_its_file_changes(tmp_path: Path) -> None:
    made = loader(in_files(tmp_path), memo_bytes=1 << 30)
    before = pixels(made, 2)
    for place in range(6):
        Image.fromarray(np.full((16, 16, 3), 255, np.uint8)).save(tmp_path / f"{place}.png")
        os.utime(tmp_path / f"{place}.png", ns=(1, 10**18 + place))
    after = pixels(made, 2)
    assert not any(torch.equal(one, other) for one, other in zip(before, after, strict=True))


@pytest.mark.parametrize("write", [in_files, inside, wordy])
def test_kept_rows_weigh_what_they_take(tmp_path: Path, write: Callable[[Path], Path]) -> None:
    made = loader(write(tmp_path), memo_bytes=1 << 30)
    assert len(pixels(made, 2)) == 2
    kept = made._work.kept
    assert kept is not None
    assert len(pickle.dumps(kept)) <= kept.bytes


def test_what_rows_in_memory_hold_is_not_counted_again() -> None:
    ready = Ready(Sample("a", {"image": Part("image", picture(0, side=512))}), {})
    for shared in (True, False):
        kept = Kept(shared=shared)
        kept.put(0, ready)
        assert (kept.get(0) is not None) == shared


@pytest.mark.parametrize(("write", "rows"), [(in_files, 6), (inside, 0), (wordy, 6)])
def test_samples_that_are_kept_weigh_what_they_take_and_none_holds_a_large_file(
    tmp_path: Path, write: Callable[[Path], Path], rows: int
) -> None:
    examples = loader(write(tmp_path), memo_bytes=0).examples
    first = [examples.sample(place) for place in range(len(examples))]
    known = examples._known
    assert known is not None
    assert sum(examples.sample(place) is one for place, one in enumerate(first)) == rows
    assert (len(pickle.dumps(known)) if rows else 0) <= known.bytes < 6 * KNOWN_SAMPLE_BYTES


def test_samples_are_kept_up_to_a_number_of_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(split, "KNOWN_BYTES", 60_000)
    examples = loader(wordy(tmp_path), memo_bytes=0).examples
    first = [examples.sample(place) for place in range(len(examples))]
    assert [examples.sample(place) is one for place, one in enumerate(first)] == [True] * 2 + [False] * 4


def test_many_integers_are_those_that_are_derived_one_by_one() -> None:
    keys = ["a", 'quote " and \\', "ümlaut", "", "id:7"]
    assert derive_each("split", 3, last=keys) == [derive("split", 3, key) for key in keys]
    assert derive_each(last=keys) == [derive(key) for key in keys]
