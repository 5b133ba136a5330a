"""What a run says while it runs, where standard error is no terminal."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from multitune.core.errors import Stopped
from tests.tuning.fitting import fit, nothing
from tests.tuning.small import Small, small


def test_each_evaluation_is_a_line_with_step_loss_rate_and_its_figures(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    fit(small("classify"), tmp_path, watch=lambda _: {"valid/accuracy": 0.5})
    lines = capfd.readouterr().err.splitlines()
    assert [line.split(", loss")[0] for line in lines] == ["step 4 of 8", "step 8 of 8"]
    assert all("steps/s" in line and line.endswith("valid/accuracy 0.5") for line in lines)


@pytest.fixture
def stopped(tmp_path: Path) -> str:
    def watch(_: Small) -> dict[str, float]:
        os.kill(os.getpid(), signal.SIGINT)
        return {}

    with pytest.raises(Stopped) as end:
        fit(small("classify"), tmp_path, watch=watch)
    return str(end.value)


def test_ctrl_c_names_the_step_and_the_run_folder(stopped: str, tmp_path: Path) -> None:
    assert stopped == f"stopped by Ctrl-C; the same command goes on from step 4 in {tmp_path}"


@pytest.mark.usefixtures("stopped")
def test_a_resumed_run_says_from_which_step_at_its_start_and_in_its_summary(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    outcome = fit(small("classify"), tmp_path, watch=nothing)
    assert capfd.readouterr().err.splitlines()[0] == f"went on from step 4 in {tmp_path}"
    assert outcome.summary.endswith("; went on from step 4")
