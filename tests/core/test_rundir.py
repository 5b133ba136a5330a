"""Run folders: one request, one run at a time, nothing half written."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from multitune.core.errors import Fault, RunError
from multitune.core.ledger import Ledger
from multitune.core.rundir import RunDir, open_run, write_atomic
from multitune.core.store import folder_once

REQUEST = {"name": "x", "train": {"lr": 0.1}}


def opened(folder: Path, request: dict[str, object] = REQUEST, request_hash: str = "a" * 64, fresh: bool = False) -> RunDir:
    return open_run(request=request, request_hash=request_hash, name="x", folder=folder, fresh=fresh)


def test_the_same_request_opens_its_folder_again(tmp_path: Path) -> None:
    with opened(tmp_path / "run") as run:
        run.write_json("kept.json", {"a": 1})
    with opened(tmp_path / "run") as run:
        assert run.read_json("kept.json") == {"a": 1}


def test_another_request_is_refused_with_the_difference(tmp_path: Path) -> None:
    opened(tmp_path / "run").close()
    with pytest.raises(RunError, match=r"train\.lr: 0\.1 -> 0\.2"):
        opened(tmp_path / "run", {"name": "x", "train": {"lr": 0.2}}, "b" * 64)


def test_fresh_moves_the_old_run_aside_and_loses_nothing(tmp_path: Path) -> None:
    with opened(tmp_path / "run") as run:
        run.write_text("old.txt", "kept")
    with opened(tmp_path / "run", {"name": "y"}, "b" * 64, fresh=True) as run:
        assert not (run.folder / "old.txt").exists()
    assert (tmp_path / "run.old-1" / "old.txt").read_text() == "kept"


def test_a_second_process_in_the_folder_is_refused_at_once(tmp_path: Path) -> None:
    with opened(tmp_path / "run"):
        script = (
            "from multitune.core.rundir import open_run; from pathlib import Path\n"
            f"open_run(request={REQUEST!r}, request_hash={'a' * 64!r}, name='x', folder=Path({str(tmp_path / 'run')!r}), fresh=False)"
        )
        ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=20, check=False)
    assert ended.returncode != 0
    assert "in use by another run" in ended.stderr


def test_a_lock_of_a_dead_process_is_taken(tmp_path: Path) -> None:
    script = (
        "import os; from multitune.core.rundir import open_run; from pathlib import Path\n"
        f"open_run(request={REQUEST!r}, request_hash={'a' * 64!r}, name='x', folder=Path({str(tmp_path / 'run')!r}), fresh=False)\n"
        "os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", script], timeout=20, check=False)
    opened(tmp_path / "run").close()


def test_a_folder_that_is_no_run_is_not_taken_over(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(RunError, match=r"thesis\.txt"):
        opened(tmp_path)


def test_a_stamp_that_cannot_be_read_is_an_error_not_a_new_run(tmp_path: Path) -> None:
    (tmp_path / "request.json").write_text("{")
    with pytest.raises(RunError, match="cannot be read"):
        opened(tmp_path)


def test_an_atomic_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = write_atomic(tmp_path / "file", b"old")
    with pytest.raises(TypeError):
        write_atomic(path, "text")  # type: ignore[arg-type]
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_fresh_does_not_touch_a_folder_that_is_no_run(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(RunError, match=r"thesis\.txt"):
        opened(tmp_path, fresh=True)
    assert (tmp_path / "thesis.txt").read_text() == "mine"


def test_fresh_moves_a_run_aside_from_within_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened(tmp_path / "run").close()
    monkeypatch.chdir(tmp_path / "run")
    opened(Path(), fresh=True).close()
    assert (tmp_path / "run.old-1" / "request.json").is_file()


def test_a_hidden_file_makes_a_folder_no_run(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    with pytest.raises(RunError, match=r"\.git"):
        opened(tmp_path)


@pytest.fixture
def full_disk() -> Iterator[None]:
    """No file may grow beyond 4 KiB, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.usefixtures("full_disk")
def test_a_full_disk_is_a_fault_that_names_the_file_and_leaves_the_old_one(tmp_path: Path) -> None:
    path = write_atomic(tmp_path / "file", b"old")
    with pytest.raises(Fault, match=r"file: cannot be written \(File too large\)"):
        write_atomic(path, b"x" * 10_000)
    assert [entry.read_bytes() for entry in tmp_path.iterdir()] == [b"old"]


@pytest.mark.usefixtures("full_disk")
def test_a_full_disk_under_the_ledger_is_a_fault(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.record(id="r", fate="quarantined", cause="x" * 10_000)
    with pytest.raises(Fault, match="segment-end"):
        ledger.seal("end")


@pytest.mark.usefixtures("full_disk")
def test_a_full_disk_under_the_cache_is_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MULTITUNE_CACHE", str(tmp_path))
    with pytest.raises(Fault, match="MULTITUNE_CACHE"):
        folder_once("things", {}, lambda draft: (draft / "big").write_bytes(b"x" * 10_000) and None)
