"""Shards: written once, whole or not at all, shared, and found out where they are damaged."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch

from multitune.core.errors import WriteFault
from multitune.core.protocols import Sample
from multitune.models.features import upkeep
from multitune.models.features.light import hollow, is_hollow, taken_down, taken_up
from multitune.models.features.shards import DAMAGED, Kept, Space, about
from multitune.models.replay import Stored
from tests.models.features.conftest import classifier, moving, opened

Folders = Mapping[str, Path]


def kept(seed: int, *shape: int) -> Kept:
    draw = torch.Generator().manual_seed(seed)
    tensors = (torch.randn(*shape, generator=draw), torch.empty(0), torch.arange(3))
    stored = Stored(tensors, (shape, (1, 5), (3,)), {"tower.x.layers.0": (shape,)})
    return Kept(stored, {"made": {"pixel_values": hollow((3, 8, 8), "float32"), "ids": np.arange(seed)}, "cut": 0})


def test_rows_come_back_as_they_were(tmp_path: Path) -> None:
    rows = {f"{number:064x}": kept(number, 1, 4 + number, 6) for number in range(3)}
    Space(tmp_path).write(rows)
    again = Space(tmp_path)
    assert again.look(verify=True) == []
    for name, row in rows.items():
        read = again.read(name)
        assert (read.shapes, read.below) == (row.stored.shapes, row.stored.below)
        assert all(torch.equal(one, other) for one, other in zip(read.tensors, row.stored.tensors, strict=True))
        light = again.light(name)
        assert is_hollow(light["made"]["pixel_values"])
        assert np.array_equal(light["made"]["ids"], row.light["made"]["ids"])


@pytest.mark.parametrize(("type", "error"), [("bf16", 2**-8), ("fp16", 2**-11)])
def test_a_coarser_type_is_what_is_read_back_at_once(tmp_path: Path, type: str, error: float) -> None:
    space, row = Space(tmp_path, type), kept(1, 1, 4, 6)
    space.write({"a": row})
    here, there = space.read("a").tensors, row.stored.tensors
    assert here[0].element_size() == 2
    assert 0 < float(((here[0].float() - there[0]) / there[0]).abs().max()) <= error
    assert here[2].dtype == torch.int64


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("harm", [flip, cut_short, emptied])
def test_a_damaged_shard_is_set_aside_and_its_rows_are_encoded_anew(
    folders: Folders, rows: list[Sample], tmp_path: Path, harm: Callable[[Path], None]
) -> None:
    family = classifier(folders)
    still = moving(family, "photo", "words")
    first = opened(family, still, tmp_path / "store")
    first.fill(rows)
    photo = first.sources[0]
    (shard,) = photo.stand.folder.glob("*.safetensors")
    before = {content: photo.space.read(content).tensors[0].clone() for content in [first.contents.of(rows[0].parts["photo"])]}
    harm(shard)
    findings = Space(photo.stand.folder).look(verify=True)
    assert [finding.code for finding in findings] == ["shard-damaged"]
    assert [path.name.endswith(DAMAGED) for path in photo.stand.folder.iterdir()].count(True) == 1
    again = opened(family, still, tmp_path / "store")
    again.fill(rows)
    assert (again.counts.encoded, again.counts.hits) == (20, 11)
    for content, tensor in before.items():
        assert torch.equal(again.sources[0].space.read(content).tensors[0], tensor)


def test_a_kill_while_writing_leaves_nothing_that_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(BaseException):
        pass

    def end(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", end)
        with pytest.raises(Killed):
            Space(tmp_path).write({"a": kept(1, 1, 4)})
    space = Space(tmp_path)
    assert space.look(verify=True) == []
    assert "a" not in space


def test_a_full_disk_is_told_with_the_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(WriteFault, match=r"cannot be written \(No space left on device\)"):
        Space(tmp_path / "store").write({"a": kept(1, 1, 4)})


def test_two_that_fill_one_folder_take_nothing_from_each_other(tmp_path: Path) -> None:
    one, other = Space(tmp_path), Space(tmp_path)
    one.write({"a": kept(1, 1, 4), "b": kept(2, 1, 4)})
    other.write({"b": kept(2, 1, 4), "c": kept(3, 1, 4)})
    other.write({"b": kept(2, 1, 4), "c": kept(3, 1, 4)})
    for space in (one, other, Space(tmp_path)):
        assert space.look(verify=True) == []
        assert {"a", "b", "c"} == {name for name in "abc" if name in space}
        assert torch.equal(space.read("b").tensors[0], kept(2, 1, 4).stored.tensors[0])


def test_a_store_is_listed_and_pruned_to_a_size_the_longest_unused_first(tmp_path: Path) -> None:
    for number, name in enumerate(("old", "new")):
        folder = tmp_path / name
        about(folder, {"tower": name, "cut": name, "key": {"type": "fp32"}})
        Space(folder).write({f"{number}": kept(number, 1, 40)})
        os.utime(folder / "space.json", (1000 + number, 1000 + number))
    (tmp_path / "old" / f"x{DAMAGED}").write_bytes(b"1234")
    held = upkeep.held(tmp_path)
    assert [(one.cut, one.rows) for one in held] == [("new", 1), ("old", 1)]
    pruned = upkeep.prune(tmp_path, held[0].bytes)
    assert (pruned.shards, pruned.left) == (2, held[0].bytes)
    assert [one.rows for one in upkeep.held(tmp_path)] == [1, 0]


def test_a_light_row_is_written_down_and_taken_up() -> None:
    row = {"names": {"values": hollow((7, 2), "float32"), "mask": np.ones(7, np.int32)}, "cut": 3}
    arrays: list[np.ndarray] = []
    again = taken_up(taken_down(row, arrays), arrays)
    assert again["cut"] == 3
    assert again["names"]["values"].shape == (7, 2)
    assert np.isnan(again["names"]["values"]).all()
    assert np.array_equal(again["names"]["mask"], np.ones(7))


def test_a_space_that_looks_again_forgets_what_was_taken_away_and_takes_up_what_was_added(tmp_path: Path) -> None:
    space = Space(tmp_path)
    space.write({"a": kept(1, 1, 4, 6), "b": kept(2, 1, 4, 6)})
    (first,) = tmp_path.glob("*.safetensors")
    Space(tmp_path).write({"b": kept(2, 1, 4, 6), "c": kept(3, 1, 4, 6)})
    first.unlink()
    assert space.look(verify=True) == []
    assert ["a" in space, "b" in space, "c" in space] == [False, True, True]
    assert torch.equal(space.read("b").tensors[0], kept(2, 1, 4, 6).stored.tensors[0])
