"""Derived seeds, keys, and folders that are made once."""

from __future__ import annotations

from pathlib import Path

import pytest

from multitune.core import randomness, store


def test_a_derived_seed_depends_on_every_name_and_is_the_same_everywhere() -> None:
    assert randomness.derive(1, "a") == randomness.derive(1, "a")
    assert len({randomness.derive(1, "a"), randomness.derive(1, "b"), randomness.derive("1", "a"), randomness.derive("1a")}) == 4
    assert randomness.derive(0, "order", 3) == 8694274603111992397


def test_a_key_does_not_depend_on_the_order_of_its_parts_and_refuses_nan() -> None:
    assert store.key({"a": 1, "b": [2]}) == store.key({"b": [2], "a": 1})
    with pytest.raises(ValueError, match="JSON"):
        store.key({"a": float("nan")})


def test_a_folder_is_written_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MULTITUNE_CACHE", str(tmp_path))
    calls: list[Path] = []

    def write(folder: Path) -> None:
        calls.append(folder)
        (folder / "file").write_text("x")

    first = store.folder_once("things", {"a": 1}, write)
    assert store.folder_once("things", {"a": 1}, write) == first
    assert len(calls) == 1


def test_a_folder_whose_writing_failed_is_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MULTITUNE_CACHE", str(tmp_path))

    def fail(folder: Path) -> None:
        (folder / "half").write_text("x")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        store.folder_once("things", {"a": 1}, fail)
    assert list((tmp_path / "things").iterdir()) == []
