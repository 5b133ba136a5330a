"""A first step does not wait for what only other plans need, nor for what comes after the last step."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import multitune
from multitune.core.errors import UserError
from multitune.verbs.train import running
from multitune.verbs.train.line import Line
from multitune.verbs.train.storing import keep
from tests.line.lines import recipe

pytestmark = pytest.mark.line

FIRST = """
import json, sys
from types import SimpleNamespace
import multitune
from multitune.core import catalog

class Seen:
    where = ""
    def write(self, values, *, step):
        print("at step", step, *[name for name in sys.argv[2].split() if name in sys.modules])
    def close(self):
        pass

plugin = SimpleNamespace(__doc__="Looks.", Options=catalog.Options, build=lambda options, **told: Seen())
multitune.register("tracker", "looks", plugin)
multitune.train(json.loads(sys.argv[1]), run=sys.argv[3])
"""
LATER = ("multitune.tuning.compiling.blocks", "multitune.deliver.artifact", "peft", "torchmetrics", "matplotlib")


def seen(made: dict[str, object], run: Path) -> set[str]:
    """Which of `LATER` a fresh process holds when the first step's figures are written."""
    given = [sys.executable, "-c", FIRST, json.dumps(made), " ".join(LATER), str(run)]
    answer = subprocess.run(given, capture_output=True, text=True, check=False, timeout=120)
    assert answer.returncode == 0, answer.stderr
    first = next(line for line in answer.stdout.splitlines() if line.startswith("at step 1 ") or line == "at step 1")
    return set(first.split()[3:])


def test_a_first_step_waits_for_no_module_that_it_does_not_need(tmp_path: Path) -> None:
    train = {"steps": 1, "batch_size": 8, "threads": 1, "workers": 0, "trackers": ["looks"]}
    assert seen(recipe("embeds", train=train), tmp_path / "run") == set()


def test_the_collector_is_as_it_was_once_the_model_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, seen = gc.get_threshold(), list[tuple[int, ...]]()
    start = Line.start

    def started(*given: Any, **more: Any) -> Line:
        seen.append(gc.get_threshold())
        return start(*given, **more)

    def kept(*given: Any, **more: Any) -> Any:
        seen.append(gc.get_threshold())
        return keep(*given, **more)

    monkeypatch.setattr(Line, "start", started)
    monkeypatch.setattr(running, "keep", kept)
    multitune.train(recipe("embeds", train={"steps": 1, "batch_size": 8, "threads": 1}), run=tmp_path / "run")
    assert seen == [(*before[:2], running.SELDOM), before]
    assert gc.get_threshold() == before
    with pytest.raises(UserError):
        multitune.train(recipe("embeds", strategy={"name": "partial", "towers": ["none"]}), run=tmp_path / "other")
    assert gc.get_threshold() == before
