"""An artifact: the same bits back, by any way in, with nothing else at hand."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoModel

import multitune
from multitune.core.errors import ArtifactError, DataError
from multitune.core.protocols import Sample
from multitune.core.recipe import EvaluateSpec
from multitune.core.tasks import classification
from multitune.deliver import golden
from multitune.deliver.artifact import open_artifact
from multitune.measure.evaluator import Evaluator
from tests.deliver.making import Made, SampleList

pytestmark = pytest.mark.line


def _inputs(made: Made) -> list[Sample]:
    return [Sample(one.id, {name: one.parts[name] for name in made.artifact.needs.parts}) for one in made.samples]


@pytest.mark.parametrize("kind", ["tuned", "with_lora", "embedding", "speaking"])
def test_a_saved_and_opened_model_says_the_same_bits(kind: str, request: pytest.FixtureRequest) -> None:
    made: Made = request.getfixturevalue(kind)
    again = open_artifact(made.artifact.folder).predictor().predict(_inputs(made))
    assert [golden.distance(now, before) for now, before in zip(again, made.said, strict=True)] == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("kind", ["tuned", "with_lora", "embedding", "speaking"])
def test_golden_inputs_are_answered_as_when_it_was_saved(kind: str, request: pytest.FixtureRequest) -> None:
    assert open_artifact(request.getfixturevalue(kind).artifact.folder).parity() == 0.0


def test_it_opens_elsewhere_with_nothing_else(tuned: Made, tmp_path: Path) -> None:
    moved = shutil.copytree(tuned.artifact.folder, tmp_path / "moved")
    assert multitune.load(moved).parity() == 0.0


def test_what_it_needs_comes_back(tuned: Made) -> None:
    opened = open_artifact(tuned.artifact.folder)
    assert opened.needs == tuned.artifact.needs
    assert opened.needs.answers["label"].counts == (3, 1)
    assert set(opened.parts) == {"image", "caption"}


def test_predict_takes_paths_bytes_pictures_and_arrays_alike(tuned: Made) -> None:
    image = tuned.samples[0].parts["image"].value.path
    ways = [image, str(image), image.read_bytes(), Image.open(image), np.array(Image.open(image))]
    said = [tuned.artifact.predict({"image": way, "caption": "picture 0"}) for way in ways]
    assert [golden.distance(one, tuned.said[0]) for one in said] == [0.0] * len(ways)


def test_predict_answers_a_list_in_order(tuned: Made) -> None:
    rows = [{"id": one.id, "image": one.parts["image"].value.path, "caption": one.parts["caption"].value} for one in tuned.samples]
    said = tuned.artifact.predict(rows)
    assert [one.id for one in said] == ["row 0", "row 1", "row 2"]
    assert max(golden.distance(one, before) for one, before in zip(said, tuned.said, strict=True)) == 0.0


def test_what_is_evaluated_is_what_is_predicted_row_for_row(tuned: Made) -> None:
    judge = Evaluator(EvaluateSpec(intervals=0), classification.build(classification.Options()), tuned.artifact.needs)
    report = judge.evaluate(tuned.artifact.predictor(), SampleList(tuned.samples), keep=True)
    rows = [{"id": one.id, "image": one.parts["image"].value.path, "caption": one.parts["caption"].value} for one in tuned.samples]
    said = tuned.artifact.predict(rows)
    assert [one.id for one in report.predictions] == [one.id for one in said]
    assert [golden.distance(one, other) for one, other in zip(report.predictions, said, strict=True)] == [0.0, 0.0, 0.0]


def test_predict_of_an_embedder_takes_one_part_alone(embedding: Made) -> None:
    said = embedding.artifact.predict({"image": embedding.samples[0].parts["image"].value.path})
    assert np.array_equal(said.answers["image"].value, embedding.said[0].answers["image"].value)


def test_predict_names_the_part_that_is_missing(tuned: Made) -> None:
    with pytest.raises(DataError, match=r'predict, row 0: "caption" is missing\. Did you mean "caption" where it says "captoin"\?'):
        tuned.artifact.predict({"image": tuned.samples[0].parts["image"].value.path, "captoin": "a picture"})


@pytest.mark.parametrize("data", ["a.png", Path("a.png"), ["a.png"], Image.new("RGB", (4, 4))])
def test_predict_says_what_to_give_in_place_of_no_mapping(data: Any, tuned: Made) -> None:
    with pytest.raises(DataError, match=r'no mapping of parts\. Give \{"image": \.\.\., "caption": \.\.\.\}, or a list of such'):
        tuned.artifact.predict(data)


def test_predict_names_a_missing_file_as_it_was_given(tuned: Made) -> None:
    with pytest.raises(DataError, match=r'row 0, image: there is no file gone\.png \(given as "pictures/gone\.png"\)\.'):
        tuned.artifact.predict({"image": "pictures/gone.png", "caption": "x"})


def test_predict_names_the_part_that_cannot_be_read(tuned: Made) -> None:
    with pytest.raises(DataError, match="row 0, image: "):
        tuned.artifact.predict({"image": b"not a picture", "caption": "x"})


@pytest.mark.parametrize("kind", ["with_lora", "speaking"])
def test_a_lora_artifact_equals_its_merged_form(kind: str, request: pytest.FixtureRequest) -> None:
    made: Made = request.getfixturevalue(kind)
    merged = open_artifact(made.artifact.folder, merge=True)
    said = merged.predictor().predict(_inputs(made))
    assert max(golden.distance(now, before) for now, before in zip(said, made.said, strict=True)) < 1e-5
    assert not any("lora" in name for name in merged.family.state_dict())


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # PEFT 0.21 asks Transformers 5.2x by the old name
def test_a_tower_with_its_adapter_opens_in_plain_transformers_and_peft(with_lora: Made) -> None:
    folder = with_lora.artifact.folder
    plain = PeftModel.from_pretrained(AutoModel.from_pretrained(folder / "towers" / "image"), str(folder / "adapters" / "image"))
    ours = {name: tensor for name, tensor in with_lora.artifact.family.towers["image"].state_dict().items() if ".lora_" in name}
    theirs = {name.removeprefix("base_model.model."): tensor for name, tensor in plain.state_dict().items() if ".lora_" in name}
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


def test_an_adapter_keeps_its_base_beside_it(with_lora: Made) -> None:
    weights = load_file(with_lora.artifact.folder / "towers" / "image" / "model.safetensors")
    assert not any("lora" in name or "base_layer" in name for name in weights)


def test_other_preprocessing_is_refused(tuned: Made, tmp_path: Path) -> None:
    moved = shutil.copytree(tuned.artifact.folder, tmp_path / "moved")
    opened = open_artifact(moved)
    described = json.loads((moved / "contract.json").read_text("utf-8"))
    described["preparer"]["parts"]["image"] = {"other": True}
    (moved / "contract.json").write_text(json.dumps(described), "utf-8")
    with pytest.raises(ArtifactError, match="preprocesses its input otherwise"):
        _ = opened.family


def test_saving_again_replaces_the_old_one(tuned: Made) -> None:
    names = {path.name for path in tuned.artifact.folder.parent.iterdir()}
    assert names == {"media", "artifact"}


def test_the_card_says_what_it_is_and_how_well_it_does(with_lora: Made) -> None:
    text = (with_lora.artifact.folder / "README.md").read_text("utf-8")
    assert "It reads image (image), caption (text); it gives label (category)." in text
    assert "| accuracy | 0.5 | 0.4 to 0.6 |" in text
    assert "`adapters/image`" in text


def test_no_file_names_a_place_on_this_machine(tuned: Made) -> None:
    texts = [path for path in tuned.artifact.folder.rglob("*") if path.suffix in {".json", ".md"}]
    places = (str(tuned.artifact.folder.parent), str(Path(multitune.__file__).parent))
    assert [path.name for path in texts if any(place in path.read_text("utf-8") for place in places)] == []
