"""A store against the machine: full disks, ends in the middle of a shard, several that fill it at once, bytes that went bad."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

import multitune
from multitune.core.errors import WriteFault
from multitune.core.protocols import Sample
from multitune.models.features.filling import Features
from multitune.models.features.shards import ABOUT, DAMAGED, Kept, Space
from multitune.models.features.upkeep import MEDIA
from multitune.models.replay import Seam, Stored, encode_rows
from tests.models.features.conftest import ASKED, written
from tests.models.features.processes import apart, ended_at, together, without_rights

Folders = Mapping[str, Path]
Opened = Callable[[Path], Features]


def kept(seed: int) -> Kept:
    tensor = torch.randn(1, 500, generator=torch.Generator().manual_seed(seed))
    return Kept(Stored((tensor,), ((1, 500),)), {"made": seed})


def shard(*seeds: int) -> dict[str, Kept]:
    return {f"{seed:064x}": kept(seed) for seed in seeds}


POINTS: Mapping[str, tuple[Any, str, int]] = {
    "before its bytes": (Path, "write_bytes", 0),
    "before they are on the disk": (os, "fsync", 0),
    "before it has its name": (Path, "replace", 0),
    "before the folder is on the disk": (os, "fsync", 1),
}


@pytest.mark.parametrize("point", POINTS)
def test_a_process_killed_while_it_writes_a_shard_leaves_the_shard_or_nothing(tmp_path: Path, point: str) -> None:
    Space(tmp_path).write(shard(1, 2))
    place, name, call = POINTS[point]

    def write() -> str:
        ended_at(place, name, call=call)
        Space(tmp_path).write(shard(2, 3))
        return "went on"

    assert apart(write) == "killed"
    _is_right(tmp_path, rows=3 if call else 2)


def test_a_process_killed_with_half_of_a_shard_written_leaves_nothing_of_it(tmp_path: Path) -> None:
    def write() -> str:
        own = Path.write_bytes

        def half(path: Path, data: bytes) -> int:
            own(path, data[: len(data) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
            return 0

        Path.write_bytes = half  # type: ignore[method-assign]
        Space(tmp_path).write(shard(1))
        return "went on"

    assert apart(write) == "killed"
    assert [path.stat().st_size > 0 for path in tmp_path.glob(".*.tmp-*")] == [True]
    _is_right(tmp_path, rows=0)


def _is_right(folder: Path, *, rows: int) -> None:
    space = Space(folder)
    assert space.look(verify=True) == []
    assert len(space) == rows
    for seed in range(1, 5):
        if f"{seed:064x}" in space:
            assert torch.equal(space.read(f"{seed:064x}").tensors[0], kept(seed).stored.tensors[0])


def at_its_length(data: bytearray) -> int:
    return 0


def in_its_header(data: bytearray) -> int:
    return data.index(b"kinds")


def in_its_index(data: bytearray) -> int:
    return data.index(b"0" * 63 + b"1") + 63


def in_its_numbers(data: bytearray) -> int:
    return (len(data) + data.index(b"0" * 64)) // 2


@pytest.mark.parametrize("where", [at_its_length, in_its_header, in_its_index, in_its_numbers])
def test_one_bit_that_went_bad_anywhere_in_a_shard_is_found(tmp_path: Path, where: Callable[[bytearray], int]) -> None:
    Space(tmp_path).write({**shard(1), "0" * 64: kept(5)})
    (path,) = tmp_path.glob("*.safetensors")
    data = bytearray(path.read_bytes())
    data[where(data)] ^= 1
    path.write_bytes(data)
    space = Space(tmp_path)
    assert [finding.code for finding in space.look(verify=True)] == ["shard-damaged"]
    assert (len(space), [one.name for one in tmp_path.iterdir()]) == (0, [path.name + DAMAGED])


def test_a_shard_that_cannot_be_read_is_passed_over_and_left_to_whom_can_read_it(tmp_path: Path) -> None:
    Space(tmp_path).write(shard(1))
    (tmp_path / f"{'0' * 40}.safetensors").mkdir()
    space = Space(tmp_path)
    assert [(finding.code, "cannot be read: Is a directory" in finding.message) for finding in space.look(verify=True)] == [
        ("shard-damaged", True)
    ]
    assert (len(space), (tmp_path / f"{'0' * 40}.safetensors").exists()) == (1, True)


@pytest.fixture
def opened(family: Any, seams: Mapping[str, Seam]) -> Opened:
    """Opens a store as a run would."""
    return lambda root: Features.open(family, seams, root=root, asked=ASKED)[0]


def told(features: Features) -> str:
    return json.dumps([features.counts.hits, features.counts.encoded])


def are_right(features: Features, rows: list[Sample]) -> None:
    """What is kept of rows is what the model gives."""
    from multitune.models.predictor import Forgetful

    for source in features.sources:
        there = [row for row in rows if source.stand.asked(row)]
        ready = [features.prepared(row, source, Forgetful()) for row in there]
        made = encode_rows(features.family, source.seam, [row for row in ready if row is not None])
        for row, stored in zip(there, made, strict=True):
            found = source.space.read(features.contents.of(row.parts[source.stand.tower]))
            assert stored is not None
            assert all(map(torch.equal, found.tensors, stored.tensors))


def test_two_processes_that_fill_the_same_rows_at_once_both_end_well_and_all_is_right(
    opened: Opened, rows: list[Sample], tmp_path: Path
) -> None:
    def fill() -> str:
        features = opened(tmp_path / "store")
        features.fill(rows)
        return told(features)

    counts = [json.loads(said) for said in together(fill, fill, fill)]
    assert [hits + encoded for hits, encoded in counts] == [31, 31, 31]
    again = opened(tmp_path / "store")
    again.fill(rows)
    again.check()
    assert (again.counts.hits, again.counts.encoded) == (31, 0)
    are_right(again, rows)
    assert multitune.store("verify", folder=tmp_path / "store").ok


def test_a_process_killed_between_two_shards_leaves_the_first_and_the_next_goes_on(
    opened: Opened, rows: list[Sample], tmp_path: Path
) -> None:
    def fill() -> str:
        ended_at(Path, "replace", call=3)  # two spaces told of, one shard; the second shard never gets its name
        opened(tmp_path / "store").fill(rows)
        return "went on"

    assert apart(fill) == "killed"
    again = opened(tmp_path / "store")
    again.fill(rows)
    again.check()
    assert (again.counts.hits, again.counts.encoded) == (20, 11)
    are_right(again, rows)


def test_a_file_that_may_grow_no_further_is_told_and_what_was_there_stays(opened: Opened, rows: list[Sample], tmp_path: Path) -> None:
    opened(tmp_path / "store").fill(rows[:4])

    def fill() -> str:
        features = opened(tmp_path / "store")
        resource.setrlimit(resource.RLIMIT_FSIZE, (6000, 6000))
        try:
            features.fill(rows)
        except WriteFault as fault:
            return str(fault)
        return "went on"

    said = apart(fill)
    assert "cannot be written (File too large)" in said, said
    assert not [*(tmp_path / "store").rglob("*.tmp-*")]
    again = opened(tmp_path / "store")
    again.fill(rows)
    assert (again.counts.hits, again.counts.encoded) == (8, 23)
    are_right(again, rows)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 24 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=24k", "none", str(folder)]
    if shutil.which("mount") is None or subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("no disk may be mounted here")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)  # shards are mapped until what read them is gone


def test_a_disk_that_is_full_is_told_and_with_more_room_the_next_run_goes_on(opened: Opened, rows: list[Sample], disk: Path) -> None:
    features = opened(disk / "store")
    with pytest.raises(WriteFault, match=r"cannot be written \(No space left on device\)"):
        features.fill(rows)
    assert not [*disk.rglob("*.tmp-*")]
    subprocess.run(["mount", "-o", "remount,size=4m", disk], check=True)
    again = opened(disk / "store")
    again.fill(rows)
    assert again.counts.hits + again.counts.encoded == 31
    are_right(again, rows)


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder that every user reads."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    for path in (folder, *folder.rglob("*")):
        if path.is_dir():
            path.chmod(0o755)
    shutil.rmtree(folder)


def test_a_store_that_may_only_be_read_gives_what_it_has_and_says_where_it_lacks_something(opened: Opened, shared: Path) -> None:
    (shared / "media").mkdir()
    rows = written(shared / "media")
    opened(shared / "store").fill(rows[:8])
    shutil.rmtree(shared / "store" / "media")  # nothing is remembered of files, and nothing can be

    def fill() -> str:
        without_rights(shared)
        features = opened(shared / "store")
        features.fill(rows[:8])
        features.check()
        said = told(features)
        try:
            features.fill(rows)
        except WriteFault as fault:
            return said + str(fault)
        return said + "went on"

    said = apart(fill)
    assert said.startswith("[15, 0]"), said
    assert "cannot be written (Permission denied)" in said


def test_what_a_store_says_of_itself_is_written_anew_where_it_went_bad(opened: Opened, rows: list[Sample], tmp_path: Path) -> None:
    first = opened(tmp_path / "store")
    first.fill(rows[:4])
    about = first.sources[0].stand.folder / ABOUT
    before = about.read_bytes()
    about.write_bytes(b"\0" * 9)
    again = opened(tmp_path / "store")
    again.fill(rows[:4])
    assert about.read_bytes() == before
    assert (again.counts.hits, again.counts.encoded) == (8, 0)


def test_what_is_remembered_of_files_but_cannot_be_read_is_passed_over(opened: Opened, rows: list[Sample], tmp_path: Path) -> None:
    opened(tmp_path / "store").fill(rows)
    (tmp_path / "store" / MEDIA / "0.txt").mkdir()
    again = opened(tmp_path / "store")
    again.fill(rows)
    assert (again.counts.hits, again.counts.encoded) == (31, 0)
    assert all(again.contents.sure(part) for row in rows for part in row.parts.values())


def test_a_store_is_verified_past_what_cannot_be_read_of_it(opened: Opened, rows: list[Sample], tmp_path: Path) -> None:
    opened(tmp_path / "store").fill(rows[:4])
    (tmp_path / "store" / MEDIA / "0.txt").mkdir()
    assert multitune.store("verify", folder=tmp_path / "store").ok
