"""A checkpoint is whole or absent, and never believed unread."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from multitune.core.errors import Fault, StateError
from multitune.tuning import checkpoint
from multitune.tuning.checkpoint import State


def state(step: int) -> State:
    return State(step, {"a": torch.full((50,), float(step))}, {"a|step": torch.tensor(float(step))}, {"x": [1, None]})


def saved(folder: Path, *steps: int, keep: int = 9, best: int = 0) -> None:
    for step in steps:
        checkpoint.save(folder, state(step), keep=keep, needed={best})


def newest(folder: Path) -> int:
    found = checkpoint.latest(folder)
    return found.state.step if found else 0


def test_what_is_read_is_what_was_written(tmp_path: Path) -> None:
    saved(tmp_path, 3)
    back = checkpoint.read(checkpoint.at(tmp_path, 3))
    assert (back.step, back.facts) == (3, {"x": [1, None]})
    assert torch.equal(back.tensors["a"], torch.full((50,), 3.0))


def test_the_newest_are_kept_and_the_best(tmp_path: Path) -> None:
    saved(tmp_path, 1, 2, 3, 4, 5, keep=2, best=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000002", "step-000004", "step-000005"]


@pytest.mark.parametrize("name", [*checkpoint.FILES, "manifest.json"])
def test_any_flipped_bit_makes_the_next_older_one_the_latest(tmp_path: Path, name: str) -> None:
    saved(tmp_path, 1, 2)
    file = checkpoint.at(tmp_path, 2) / name
    whole = file.read_bytes()
    for place in {0, len(whole) // 2, len(whole) - 2}:
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(StateError):
            checkpoint.read(checkpoint.at(tmp_path, 2))
    found = checkpoint.latest(tmp_path)
    assert found is not None
    assert (found.state.step, [finding.code for finding in found.findings]) == (1, ["checkpoint-bad"])
    assert newest(tmp_path) == 1


@pytest.mark.parametrize("name", [*checkpoint.FILES, "manifest.json"])
def test_a_file_cut_short_or_gone_is_noticed(tmp_path: Path, name: str) -> None:
    saved(tmp_path, 1, 2, 3)
    file = checkpoint.at(tmp_path, 3) / name
    os.truncate(file, file.stat().st_size - 1)
    (checkpoint.at(tmp_path, 2) / name).unlink()
    assert newest(tmp_path) == 1


def test_without_one_that_verifies_the_run_never_silently_starts_anew(tmp_path: Path) -> None:
    saved(tmp_path, 1)
    (checkpoint.at(tmp_path, 1) / "state.json").write_text("{}")
    for _ in range(2):
        with pytest.raises(StateError, match="no checkpoint verifies"):
            checkpoint.latest(tmp_path)


def test_what_a_kill_left_half_written_is_removed_and_not_read(tmp_path: Path) -> None:
    saved(tmp_path, 1)
    checkpoint.at(tmp_path, 1).rename(tmp_path / "step-000002.tmp-abcd")
    assert newest(tmp_path) == 0
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_does_not_take_it_leaves_the_old_ones_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved(tmp_path, 1)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(Fault, match="No space left"):
        saved(tmp_path, 2)
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir()] == ["step-000001"]
    assert newest(tmp_path) == 1


def test_a_step_kept_again_replaces_the_old_one(tmp_path: Path) -> None:
    saved(tmp_path, 1, 1)
    assert newest(tmp_path) == 1
