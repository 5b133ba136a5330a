"""A modality, a tower and a loss of another package: used by name, with no change here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.third_party.conftest import ROOT, Run, curve_rows, run_with

RECIPE = """
name: curves
task: classification
data:
  source: {name: table, path: rows.jsonl}
  parts: {curve: {modality: curve, options: {separator: ";"}}, kind: category}
  answers: [kind]
  split: {train: 0.6, valid: 0.15, test: 0.25}
model: {name: fusion_encoder, towers: {curve: {name: curve_reader, depth: 2, width: 32}}}
loss: {name: poly_cross_entropy, epsilon: 2}
train: {steps: 24, batch_size: 32, micro_batch: 16, lr: 2e-3, threads: 1, evaluate_every: 12}
evaluate: {intervals: 50}
"""
USED = {"loss.poly_cross_entropy", "modality.curve", "tower.curve_reader"}


@pytest.fixture(scope="module")
def trained(curves: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `run/`, a finished run of the recipe in a process of its own with one loader process."""
    folder = tmp_path_factory.mktemp("curves")
    curve_rows(folder)
    (folder / "recipe.yaml").write_text(RECIPE)
    words = ("-m", "multitune", "train", "recipe.yaml", "train.workers=1", "--run", "run", "--json")
    made = run_with(curves, words=words, cwd=folder)
    assert made.returncode == 0, made.stderr
    return folder


@pytest.mark.line
def test_a_recipe_learns_from_a_modality_a_tower_and_a_loss_of_another_package(trained: Path) -> None:
    figures = json.loads((trained / "run" / "result.json").read_text("utf-8"))["figures"]
    assert figures["test/accuracy"] > figures["test/untuned/accuracy"] + 0.3
    assert figures["test/accuracy"] > 0.9


@pytest.mark.line
def test_the_plan_names_the_package_and_its_version_and_they_bind_bits(trained: Path) -> None:
    values = json.loads((trained / "run" / "plan.json").read_text("utf-8"))["values"]
    found = {name.removeprefix("plug-ins."): value for name, value in values.items() if name.startswith("plug-ins.")}
    assert set(found) == USED
    assert {(value["value"], value["binds"]) for value in found.values()} == {("multitune-curves 0.3.0", "bits")}


@pytest.mark.line
def test_its_artifact_opens_with_the_same_predictions_and_answers_evaluate_and_predict(trained: Path, curves: Path) -> None:
    script = """
import json, multitune
model = multitune.load("run/artifact")
rows = json.load(open("run/artifact/golden/rows.json"))
said = model.predict({"curve": "0;0.2;0.4;0.5;0.8;1.0;1.1"}).answers["kind"].value
measured = multitune.evaluate("run/artifact", overrides=["evaluate.intervals=0"]).figures["test/accuracy"]
print(json.dumps([len(rows), model.parity(), said, measured]))
"""
    made = run_with(curves, words=("-c", script), cwd=trained)
    assert made.returncode == 0, made.stderr
    golden, parity, said, measured = json.loads(made.stdout.splitlines()[-1])
    assert (golden > 0, parity, said) == (True, 0.0, "rise")
    assert measured == json.loads((trained / "run" / "result.json").read_text("utf-8"))["figures"]["test/accuracy"]


@pytest.mark.line
def test_where_the_package_is_gone_its_artifact_is_refused_with_what_would_do(trained: Path) -> None:
    refused = run_with(words=("-m", "multitune", "predict", "run/artifact", "--out", "said.jsonl"), cwd=trained)
    assert refused.returncode == 2, refused.stderr
    assert '"curve" is not known' in refused.stderr
    assert "installed" in refused.stderr
    assert "--plugin FILE" in refused.stderr


def test_list_shows_its_plug_ins_with_their_package_and_options(with_curves: Run) -> None:
    shown = with_curves("-m", "multitune", "list", "loss")
    assert shown.returncode == 0
    line = next(line for line in shown.stdout.splitlines() if "poly_cross_entropy" in line)
    assert line.endswith("[multitune-curves 0.3.0]")
    assert "epsilon = 1.0  0: plain cross-entropy" in shown.stdout
    assert not any("[" in line for line in shown.stdout.splitlines() if line.startswith("  cross_entropy"))


@pytest.mark.line
def test_the_contract_test_covers_them_as_it_is(with_curves: Run) -> None:
    words = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "curve or poly", str(ROOT / "tests/rules/test_catalog.py"))
    made = with_curves(*words, f"--rootdir={ROOT}")
    assert made.returncode == 0, made.stdout
    assert "9 passed" in made.stdout  # three sentences about each of three plug-ins
