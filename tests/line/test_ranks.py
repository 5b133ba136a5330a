"""Two real ranks under torchrun keep one ledger, answer from a finished run, and end together where the run is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from multitune.core.ledger import Ledger
from tests.line.test_bad_input import pictures, recipe

pytestmark = pytest.mark.line
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
TWO = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "multitune", "--")
BAD = (3, 8, 13, 21, 34, 55)


def trained(folder: Path, name: str, *words: str, ranks: int = 1) -> subprocess.CompletedProcess[str]:
    """`multitune train` on the recipe in `folder`, on one rank or two."""
    start = TWO if ranks == 2 else ("-m", "multitune")
    command = [sys.executable, *start, "train", str(folder / "recipe.json"), *words, "--run", str(folder / name)]
    return subprocess.run(command, capture_output=True, text=True, timeout=200, env=ENVIRONMENT, check=False)


def figures(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "result.json").read_text("utf-8"))["figures"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one rank and one of two, on a table with six torn pictures."""
    folder = tmp_path_factory.mktemp("ranks")
    made = recipe(pictures(folder / "data", 60))
    for number in BAD:
        (folder / "data" / f"{number}.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    made["data"]["max_loss"] = 0.5
    made["train"] |= {"steps": 10, "micro_batch": 2, "evaluate_every": 10}
    (folder / "recipe.json").write_text(json.dumps(made))
    for name, ranks in (("one", 1), ("two", 2)):
        ended = trained(folder, name, ranks=ranks)
        assert ended.returncode == 0, ended.stderr[-3000:]
    return folder


def test_two_ranks_keep_the_ledger_of_one(runs: Path) -> None:
    one, two = (Ledger(runs / name / "ledger") for name in ("one", "two"))
    assert {record.id for record in one.records()} == {f"r{number}" for number in BAD}
    assert (two.records(), two.hash()) == (one.records(), one.hash())
    assert figures(runs / "two")["rows_quarantined"] == figures(runs / "one")["rows_quarantined"] == len(BAD)


@pytest.mark.slow
def test_a_finished_run_answers_on_two_ranks(runs: Path) -> None:
    before = figures(runs / "two")
    again = trained(runs, "two", ranks=2)
    assert again.returncode == 0, again.stderr[-3000:]
    assert "finished before" in again.stdout
    assert figures(runs / "two") == before


def test_a_run_that_the_main_rank_refuses_ends_on_both(runs: Path) -> None:
    refused = trained(runs, "two", "train.lr=9e-9", ranks=2)
    assert refused.returncode != 0
    assert "belongs to another request" in refused.stderr
    assert "train.py" not in refused.stderr
