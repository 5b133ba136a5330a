"""The portrait of a model: every parameter counted once, shapes as they come out, limits held against real rows."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModel, AutoModelForImageClassification

from multitune.core.errors import ModelError
from multitune.models.inspection.portrait import Portrait, draw
from multitune.models.load import load_outline
from multitune.verbs.inspect import inspect
from tests.models.conftest import VIT_FILES, tokenizer, write_folder

KINDS = ("vit", "swin", "resnet", "bert", "wav2vec2")
RECIPE = """
name: seen
task: retrieval
data:
  source: {name: digits}
  parts: {image: image, caption: text}
  split: {train: 0.8, valid: 0.1, test: 0.1}
model: {name: dual_encoder, towers: {image: tiny/image, caption: tiny/text}}
"""


def portrait(folder: Path) -> Portrait:
    return draw(load_outline(str(folder)))


@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_is_in_one_tower_or_outside_and_every_block_gives_a_shape(kind: str, folders: Mapping[str, Path]) -> None:
    drawn = portrait(folders[kind])
    plain = AutoModel.from_pretrained(folders[kind], dtype=torch.float32)
    assert sum(tower.num_parameters for tower in drawn.towers) + sum(drawn.outside.values()) == plain.num_parameters()
    assert drawn.num_parameters == plain.num_parameters()
    for tower in drawn.towers:
        assert not tower.untried
        assert tower.gives
        assert all(block.shape for block in tower.blocks)
        assert sum(block.num_parameters for block in tower.blocks) <= tower.num_parameters


def test_a_model_of_two_towers_has_both_and_what_joins_them_outside(clip: Path) -> None:
    drawn = portrait(clip)
    assert {tower.name: tower.path for tower in drawn.towers} == {"image": "vision_model", "text": "text_model"}
    assert set(drawn.outside) == {"visual_projection", "text_projection", "logit_scale"}
    assert [len(tower.blocks) for tower in drawn.towers] == [3, 3]


def test_shapes_are_those_that_the_loaded_model_gives(folders: Mapping[str, Path]) -> None:
    (tower,) = portrait(folders["vit"]).towers
    assert AutoModel.from_pretrained(folders["vit"])(torch.zeros(tower.given["pixel_values"])).last_hidden_state.shape == tower.gives


def test_a_head_and_its_classes_are_shown_and_held_against_those_of_the_data(tmp_path: Path) -> None:
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16, "image_size": 32}
    config = AutoConfig.for_model("vit", **sizes, id2label={place: str(place) for place in range(5)})
    AutoModelForImageClassification.from_config(config).save_pretrained(tmp_path / "five")
    (tmp_path / "five" / "preprocessor_config.json").write_text(json.dumps(VIT_FILES["preprocessor_config.json"]))
    drawn = portrait(tmp_path / "five")
    assert (drawn.labels, dict(drawn.outside)) == (("0", "1", "2", "3", "4"), {"classifier": 16 * 5 + 5})
    assert "5 of 10 classes are not among the 5 of its head" in inspect(str(tmp_path / "five"), recipe="recipes/digits.yaml").text


def test_tied_weights_are_named_and_counted_once() -> None:
    drawn = draw(load_outline("tiny/lm"))
    assert dict(drawn.tied) == {"lm_head.weight": "transformer.wte.weight"}
    assert drawn.num_parameters == sum(tower.num_parameters for tower in drawn.towers)


def test_a_folder_without_its_processor_is_drawn_and_says_what_is_missing(folders: Mapping[str, Path], tmp_path: Path) -> None:
    shutil.copytree(folders["vit"], tmp_path / "vit")
    (tmp_path / "vit" / "preprocessor_config.json").unlink()
    (tower,) = portrait(tmp_path / "vit").towers
    assert "has no preprocessor_config.json" in tower.untried
    assert len(tower.blocks) == 3


def test_a_config_without_weights_is_drawn_and_says_so(folders: Mapping[str, Path], tmp_path: Path) -> None:
    shutil.copytree(folders["bert"], tmp_path / "bert", ignore=shutil.ignore_patterns("*.safetensors"))
    drawn = portrait(tmp_path / "bert")
    assert drawn.num_parameters == portrait(folders["bert"]).num_parameters
    assert any("no weights here" in note for note in drawn.notes)


def test_weights_of_another_architecture_are_refused(folders: Mapping[str, Path], tmp_path: Path) -> None:
    shutil.copytree(folders["vit"], tmp_path / "mixed")
    shutil.copy(folders["bert"] / "model.safetensors", tmp_path / "mixed" / "model.safetensors")
    with pytest.raises(ModelError, match=r"weights (that the model does not have|of another shape)"):
        portrait(tmp_path / "mixed")


def test_parts_that_no_tower_reads_pictures_blown_up_and_texts_cut_are_found(tmp_path: Path) -> None:
    recipe = tmp_path / "seen.yaml"
    recipe.write_text(RECIPE)
    told = inspect("tiny/image", recipe=recipe)
    assert {(finding.code, finding.where) for finding in told.findings} == {
        ("pictures-small", "data.parts.image"),
        ("unread-part", "data.parts.caption"),
    }
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16, "max_position_embeddings": 4}
    short = write_folder(tmp_path / "short", "bert", sizes | {"vocab_size": len(tokenizer())}, {})
    assert ("texts-cut", "data.parts.caption") in {(found.code, found.where) for found in inspect(str(short), recipe=recipe).findings}
