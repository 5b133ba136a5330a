"""Every recipe of a strategy in a few steps, from end to end: it moves what it says, and its artifact is used as it was measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import multitune
from multitune.core.finding import Severity
from multitune.core.recipe import read_recipe

pytestmark = pytest.mark.line
RECIPES = sorted((Path(__file__).resolve().parents[2] / "recipes").glob("strategy-*.yaml"))
SMALL = ["data.source.rows=240", "train.epochs=null", "train.steps=8", "train.batch_size=16", "train.evaluate_every=8", "train.threads=1"]
QUIET = ["evaluate.intervals=0", "evaluate.baselines=false", "evaluate.ablations=false"]
MOVING = {"did-not-move", "moved-unplanned", "never-moves"}
ALWAYS = {"strategy-adapter", "strategy-phases", "strategy-progressive"}


def slow_but_some(path: Path) -> object:
    return pytest.param(path, id=path.stem, marks=() if path.stem in ALWAYS else pytest.mark.slow)


@pytest.mark.parametrize("recipe", [slow_but_some(path) for path in RECIPES])
def test_a_strategy_moves_what_it_says_and_its_artifact_gives_the_figures_of_the_run(recipe: Path, tmp_path: Path) -> None:
    result = multitune.train(read_recipe(recipe, [*SMALL, *QUIET]), run=tmp_path / "run")
    assert result.ok
    assert not [finding for finding in result.findings if finding.code in MOVING and finding.severity != Severity.INFO]
    planned = json.loads((tmp_path / "run" / "plan.json").read_text("utf-8"))["values"]["moves.parameters"]["value"]
    assert planned == result.figures["parameters_moved"]
    again = multitune.evaluate(tmp_path / "run")
    assert dict(again.figures) == {name: value for name, value in result.figures.items() if name.startswith("test/")}
    assert multitune.load(tmp_path / "run" / "artifact").parity() == 0.0
