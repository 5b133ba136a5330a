"""A file that changes under its features: before a run, while it is read, behind its time stamp; never a wrong feature."""

from __future__ import annotations

import io
import os
import pickle
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from multitune.core.protocols import Media, Part, Sample
from multitune.core.randomness import generator
from multitune.data.decode import View
from multitune.data.sample import placed
from multitune.models.features.contents import Contents
from multitune.models.features.filling import Features
from multitune.models.features.preparing import LOST
from multitune.models.predictor import Forgetful
from multitune.models.replay import Seam, encode_rows
from tests.models.features.conftest import ASKED

Folders = Mapping[str, Path]
Filled = Callable[..., Features]
HOUR = 3_600_000_000_000


def drawn(seed: int, side: int = 24) -> bytes:
    """A picture whose file is as large as any other of its size."""
    stream = io.BytesIO()
    pixels = generator("changed", seed).integers(0, 256, size=(side, side, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(stream, format="PNG", compress_level=0)
    return stream.getvalue()


def row(path: Path) -> Sample:
    """A row as a run finds it: a picture in a file."""
    return Sample(path.stem, {"photo": Part("image", placed(str(path), None)), "label": Part("category", "a")})


@pytest.fixture
def filled(family: Any, seams: Mapping[str, Seam], tmp_path: Path) -> Callable[..., Features]:
    """Opens a store and fills it as a run would."""

    def opened(*samples: Sample, memo: Any = None) -> Features:
        features, _ = Features.open(family, seams, root=tmp_path / "store", asked=ASKED)
        features.fill(samples, memo)
        return features

    return opened


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A picture."""
    (tmp_path / "one.png").write_bytes(drawn(0))
    return tmp_path / "one.png"


def of_another_size(path: Path) -> None:
    path.write_bytes(drawn(1, 40))


def of_the_same_size(path: Path) -> None:
    path.write_bytes(drawn(1))


def with_its_time_stamp_put_back(path: Path) -> None:
    before = path.stat()
    path.write_bytes(drawn(1))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = path.stat()
    assert (after.st_size, after.st_mtime_ns, after.st_ino) == (before.st_size, before.st_mtime_ns, before.st_ino)


def by_another_file_in_its_place(path: Path) -> None:
    before = path.stat()
    beside = path.with_name("beside.png")
    beside.write_bytes(drawn(1))
    os.utime(beside, ns=(before.st_atime_ns, before.st_mtime_ns))
    beside.replace(path)


CHANGES = (of_another_size, of_the_same_size, with_its_time_stamp_put_back, by_another_file_in_its_place)


@pytest.mark.parametrize("change", CHANGES)
def test_a_file_that_changed_under_a_hit_gets_the_features_of_what_it_is_now(
    family: Any, path: Path, filled: Filled, change: Callable[[Path], None]
) -> None:
    before = row(path)
    hash_before = filled(before).contents.of(before.parts["photo"])
    change(path)
    now = row(path)
    again = filled(now)
    content = again.preparer().prepare(now, Forgetful())["stored"]["photo"]
    assert content != hash_before
    assert again.counts.encoded == 1
    (expected,) = encode_rows(family, again.sources[0].seam, [family.preparer.prepare(now, Forgetful())])
    assert expected is not None
    assert all(map(torch.equal, again.sources[0].space.read(content).tensors, expected.tensors))


class Changing:
    """A memo under whose hands a file changes before it is decoded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def get(self, key: str, make: Callable[[], Any]) -> Any:
        """What the changed file holds."""
        self.path.write_bytes(drawn(1))
        return make()


def test_what_a_file_became_while_it_was_read_is_not_kept_for_what_it_was(path: Path, filled: Filled) -> None:
    features = filled(row(path), memo=Changing(path))
    assert (features.counts.encoded, len(features.sources[0].space)) == (0, 0)


def test_nor_where_the_disk_tells_of_no_change_so_soon_after_another(path: Path, filled: Filled, monkeypatch: pytest.MonkeyPatch) -> None:
    for room in ("multitune.models.features.contents", "multitune.data.sample"):
        monkeypatch.setattr(f"{room}.file_key", str)
    monkeypatch.setattr("multitune.models.features.contents.FRESH_NANOSECONDS", HOUR)
    features = filled(row(path), memo=Changing(path))
    assert (features.counts.encoded, len(features.sources[0].space)) == (0, 0)
    filled(row(path))
    path.write_bytes(drawn(2))
    assert filled(row(path)).counts.encoded == 1


def test_a_file_whose_content_cannot_be_remembered_on_the_disk_is_read_again(path: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("no folder")
    contents = Contents(tmp_path / "taken")
    found = contents.of(row(path).parts["photo"])
    contents.flush()
    assert Contents(tmp_path / "taken").of(row(path).parts["photo"]) == found != ""


def test_a_view_of_another_number_is_another_content(path: Path) -> None:
    part = row(path).parts["photo"]
    views = [replace(part, value=View(part, f"7|{number}|photo", lambda: None)) for number in (0, 0, 1)]
    one, again, other = map(Contents().of, views)
    assert one == again != other


@pytest.mark.parametrize("more", [{"options": {"rate": 8000}}, {"span": (0.5, 1.5)}], ids=["options", "span"])
def test_a_file_read_in_another_way_is_another_content(path: Path, more: dict[str, Any]) -> None:
    part, contents = row(path).parts["photo"], Contents()
    assert contents.of(replace(part, **more)) != contents.of(part)
    held = Part("image", Media("bytes", data=drawn(0)))
    assert contents.of(held) == contents.of(part)
    assert contents.of(replace(held, **more)) == contents.of(replace(part, **more))


def test_another_process_reads_no_shard_that_this_one_has_not_looked_at(path: Path, filled: Filled) -> None:
    features = filled(row(path))
    preparer = features.preparer()
    path.with_name("two.png").write_bytes(drawn(3))
    late = row(path.with_name("two.png"))
    filled(late)
    other = pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(preparer))))  # noqa: S301
    assert other.prepare(row(path), Forgetful())["stored"]["photo"] == features.contents.of(row(path).parts["photo"])
    assert other.prepare(late, Forgetful())["stored"]["photo"] == LOST
