"""Whole runs on stored features: a model that joins pictures and text, and two runs that fill one store at the same time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import multitune
from multitune.core.recipe import make_recipe
from tests.line.lines import bits, recipe
from tests.line.test_features import over_frozen
from tests.line.test_goes_on import ended
from tests.models.seeing import write_llava

pytestmark = [pytest.mark.line, pytest.mark.slow]
ROOT = Path(multitune.__file__).parents[1]


def joined(folder: Path, model: Path, **train: Any) -> dict[str, Any]:
    """A model whose pictures' tower is frozen below a projector that moves."""
    made = recipe("speaks", strategy=[{"pattern": "lm*"}, {"pattern": "*projector*"}])
    made["data"]["source"] |= {"rows": 80}
    made["model"] = {"name": "generative", "pretrained": str(model)}
    made["train"] |= {"steps": 4} | train
    return made | {"features": {"store": "on", "folder": str(folder)}}


def test_a_model_that_joins_pictures_and_text_gives_the_same_bits_cold_warm_with_workers_and_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = write_llava(tmp_path / "model")
    cold = multitune.train(joined(tmp_path / "store", model), run=tmp_path / "cold")
    kept = json.loads((tmp_path / "cold" / "plan.json").read_text("utf-8"))["values"]["features.image.kept"]["value"]
    assert (kept, cold.figures["features/hits"]) == ("image", 0)
    warm = multitune.train(joined(tmp_path / "store", model, workers=2), run=tmp_path / "warm")
    assert (warm.figures["features/hits"], warm.figures["features/encoded"]) == (cold.figures["features/encoded"], 0)
    ended(monkeypatch, tmp_path / "killed", joined(tmp_path / "other", model))
    multitune.store(action="prune", folder=tmp_path / "other", to="0")
    multitune.train(joined(tmp_path / "other", model), run=tmp_path / "killed")
    assert bits(tmp_path / "warm") == bits(tmp_path / "cold") == bits(tmp_path / "killed")


def begun(folder: Path, run: Path) -> subprocess.Popen[str]:
    """A run in a process of its own."""
    path = run.with_suffix(".json")
    path.write_text(json.dumps(make_recipe(over_frozen(folder)).request()), "utf-8")
    command = [sys.executable, "-m", "multitune", "train", str(path), "--run", str(run)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)


def test_two_runs_that_fill_one_store_at_once_and_one_that_is_killed_while_it_fills_it_end_with_the_same_bits(tmp_path: Path) -> None:
    both = [begun(tmp_path / "store", tmp_path / name) for name in ("one", "other")]
    said = [run.communicate(timeout=240)[0] for run in both]
    assert [run.returncode for run in both] == [0, 0], said
    victim = begun(tmp_path / "fresh", tmp_path / "killed")
    while victim.poll() is None and not [*(tmp_path / "fresh").glob("*/.*.tmp-*"), *(tmp_path / "fresh").glob("*/*.safetensors")]:
        time.sleep(0.001)
    victim.send_signal(signal.SIGKILL)
    victim.communicate(timeout=60)
    again = begun(tmp_path / "fresh", tmp_path / "killed")
    told = again.communicate(timeout=240)[0]
    assert (victim.returncode, again.returncode) == (-signal.SIGKILL, 0), told
    assert bits(tmp_path / "one") == bits(tmp_path / "other") == bits(tmp_path / "killed")
    assert multitune.store("verify", folder=tmp_path / "store").ok
    assert multitune.store("verify", folder=tmp_path / "fresh").ok
