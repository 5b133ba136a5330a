"""Three towers from scratch from end to end: the recipe that comes with the project, small."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import multitune
from multitune.core.ledger import Ledger
from multitune.core.recipe import read_recipe
from multitune.core.result import Result
from multitune.models.predictor import plain
from multitune.verbs.plan import make_plan

pytestmark = pytest.mark.line
RECIPE = Path(__file__).resolve().parents[2] / "recipes" / "chimes-scratch.yaml"
SMALL = (
    "data.source.rows=80", "data.source.test=0.3", "train.epochs=null",
    "train.steps=3", "train.batch_size=8", "train.evaluate_every=2", "train.threads=1",
    "train.workers=0", "model.towers.image.width=16", "model.towers.audio.width=16", "model.towers.caption.width=16",
    "evaluate.intervals=0", "evaluate.baselines=false", "evaluate.ablations=false",
)  # fmt: skip
PARTS = ("image", "audio", "caption")
FRESH = """
import sys, torch
from multitune.models.load import TowerSpec, Weights, load_tower
tower = load_tower("image", TowerSpec(pretrained=sys.argv[1] + "/towers/image"), modality="image", weights=Weights())
import multitune
artifact = multitune.load(sys.argv[1])
given, own = tower.module.state_dict(), artifact.family.towers["image"].state_dict()
print(tower.provenance.origin, all(torch.equal(given[name], own[name]) for name in own), artifact.parity())
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    folder = tmp_path_factory.mktemp("scratch") / "run"
    return folder, multitune.train(RECIPE, overrides=SMALL, run=folder)


def test_the_plan_says_which_towers_are_from_scratch_and_all_of_them_move(trained: tuple[Path, Result]) -> None:
    folder, result = trained
    values = json.loads((folder / "plan.json").read_text("utf-8"))["values"]
    said = {part: values[f"model.towers.{part}.from"]["value"] for part in PARTS}
    assert said == {
        "image": "plug-in vit with random weights",
        "audio": "plug-in conv1d with random weights",
        "caption": "plug-in text_transformer with random weights",
    }
    assert result.figures["parameters_moved"] == values["model.parameters"]["value"]


def test_evaluating_the_artifact_gives_the_figures_of_the_run(trained: tuple[Path, Result]) -> None:
    folder, result = trained
    figures = dict(multitune.evaluate(folder).figures)
    assert "test/caption_to_audio/r_at_1" in figures
    assert figures == {name: value for name, value in result.figures.items() if name.startswith("test/")}


def test_a_text_alone_is_embedded_and_equal_texts_are_equal(trained: tuple[Path, Result]) -> None:
    artifact = multitune.load(trained[0] / "artifact")
    text = "a red circle and a rising flute"
    alone, again = artifact.predict([{"id": "a", "caption": text}, {"id": "b", "caption": text}])
    assert plain(alone)["answers"] == plain(again)["answers"]
    assert set(alone.answers) == {"caption"}


def test_a_process_that_knows_nothing_yet_opens_the_artifact_and_one_of_its_towers(trained: tuple[Path, Result]) -> None:
    command = [sys.executable, "-c", FRESH, str(trained[0] / "artifact")]
    answer = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert answer.stdout.split() == ["folder", "True", "0.0"], answer.stderr[-2000:]


def test_a_tuned_tower_is_the_start_of_another_run(trained: tuple[Path, Result]) -> None:
    folder = trained[0] / "artifact" / "towers" / "image"
    recipe = read_recipe(RECIPE, [text for text in SMALL if ".image." not in text] + [f"model.towers.image={folder}"])
    values = make_plan(recipe, Ledger()).plan.values
    assert values["model.towers.image.from"].value == f"folder {folder}"
    assert values["model.towers.image.blocks"].value == 3
