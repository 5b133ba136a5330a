"""What the model room states of a recipe, without weights."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from multitune.core.errors import PluginError
from multitune.core.protocols import AnswerNeed, Needs, PartNeed
from multitune.core.recipe import Recipe, make_recipe
from multitune.models import anatomy, plan
from multitune.models.load import Weights

Folders = Mapping[str, Path]
NEEDS = Needs({"image": PartNeed("image"), "text": PartNeed("text")}, {"label": AnswerNeed("category", ("a", "b"))})


def recipe(model: Mapping[str, Any], task: str = "classification") -> Recipe:
    parts = {"image": "image", "text": "text", "label": "category"}
    data = {"source": "chimes", "parts": parts, "answers": ["label"]}
    return make_recipe({"name": "x", "task": task, "data": data, "model": model})


def values(outline: plan.ModelOutline) -> dict[str, Any]:
    return {name: value.value for name, value in outline.values.items()}


def test_the_plan_says_where_each_tower_comes_from_and_what_it_is(folders: Folders) -> None:
    outline = plan.state(recipe({"towers": {"image": "tiny/image", "text": str(folders["bert"])}}), NEEDS)
    found = values(outline)
    assert found["model.family"] == "fusion_encoder"
    assert found["model.towers.image.from"] == "embedded tiny/image"
    assert found["model.towers.image.dtype"] == "fp16 -> fp32"
    assert found["model.towers.text.from"] == f"folder {folders['bert']}"
    assert found["model.towers.text.random_in_training"] == {"attention_probs_dropout_prob": 0.1, "hidden_dropout_prob": 0.1}
    assert found["model.towers.text.unused"] == ["text.pooler.dense"]
    assert found["model.towers.text.blocks"] == 3


def test_the_plan_says_what_the_family_takes_where_the_recipe_leaves_it_open(folders: Folders) -> None:
    towers = {"image": str(folders["vit"]), "text": str(folders["bert"])}
    outline = plan.state(recipe({"towers": towers}), NEEDS)
    told = {name: (outline.values[f"model.{name}"].value, outline.values[f"model.{name}"].origin) for name in ("towers", "fuse", "dropout")}
    assert told == {"towers": (towers, "recipe"), "fuse": ("concat", "default"), "dropout": (0.0, "default")}


def test_the_plan_counts_what_the_model_has(folders: Folders) -> None:
    asked = recipe({"towers": {"image": str(folders["vit"]), "text": str(folders["bert"])}})
    outline = plan.state(asked, NEEDS)
    family = plan.build_family(asked, NEEDS, Weights())
    assert outline.anatomy == anatomy.find(family)
    assert values(outline)["model.parameters"] == sum(parameter.numel() for parameter in family.parameters())
    assert values(outline)["model.bytes"] == 4 * values(outline)["model.parameters"]


def test_the_unused_on_the_meta_device_are_the_unused_with_weights(folders: Folders) -> None:
    asked = recipe({"towers": {"image": str(folders["vit"]), "text": str(folders["bert"])}, "fuse": "cross_attention"})
    family = plan.build_family(asked, NEEDS, Weights())
    row = family.preparer.prepare(plan.probe_sample(NEEDS, seed=0), plan.Forgetful())
    assert list(plan.state(asked, NEEDS).unused) == anatomy.unused(family, family.preparer.collate([row]))


def test_weights_that_start_at_random_are_a_warning(folders: Folders, tmp_path: Path) -> None:
    folder = shutil.copytree(folders["vit"], tmp_path / "vit")
    state = load_file(folder / "model.safetensors")
    state.pop("embeddings.cls_token")
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    towers = {"image": {"pretrained": str(folder), "allow_new": ["embeddings.cls_token"]}, "text": str(folders["bert"])}
    outline = plan.state(recipe({"towers": towers}), NEEDS)
    assert [(finding.code, finding.where) for finding in outline.findings] == [("weights-made-new", "model.towers.image")]


def test_what_the_plan_states_is_plain_data(folders: Folders) -> None:
    outline = plan.state(recipe({"towers": {"image": str(folders["vit"]), "text": str(folders["bert"])}}), NEEDS)
    assert json.loads(json.dumps(values(outline))) == values(outline)


def test_the_task_names_the_family_where_the_recipe_does_not(folders: Folders) -> None:
    towers = {"image": str(folders["vit"]), "text": str(folders["bert"])}
    assert plan.state(recipe({"towers": towers}, "retrieval"), Needs(NEEDS.parts, {})).family == "dual_encoder"


@pytest.mark.parametrize(
    ("model", "found"),
    [
        ({"name": "fusoin_encoder", "towers": {}}, 'Did you mean "fusion_encoder"'),
        ({"towers": {"image": {"pretraind": "x"}}}, 'Did you mean "pretrained"'),
        ({"towers": {"image": {"pretrained": "x", "pool": "max"}}}, "pool"),
        ({"towers": {"image": "tiny/image", "text": "tiny/text"}, "fuse": "crossattention"}, 'Did you mean "cross_attention"'),
    ],
)
def test_a_typo_in_the_model_is_refused_with_the_nearest_name(model: Mapping[str, Any], found: str) -> None:
    with pytest.raises(PluginError, match=found):
        plan.state(recipe(model), NEEDS)
