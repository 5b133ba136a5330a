"""Dropout and stochastic depth as the recipe states them, whatever the fields of the config are called."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoConfig

from multitune.core.errors import ModelError
from multitune.models.load import Weights, load_tower
from multitune.models.plan import randomness
from multitune.models.weights.dropping import override
from multitune.models.weights.spec import TowerSpec

Folders = Mapping[str, Path]


def changed(kind: str, **asked: float | None) -> dict[str, Any]:
    """The fields of a default config that another one is changed in."""
    before, after = AutoConfig.for_model(kind).to_dict(), AutoConfig.for_model(kind)
    override(after, **{"dropout": None, "stochastic_depth": None, **asked}, where="model.towers.x")
    return {name: value for name, value in after.to_dict().items() if before[name] != value and not isinstance(value, dict)}


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("bert", {"hidden_dropout_prob", "attention_probs_dropout_prob"}),
        ("gpt2", {"resid_pdrop", "embd_pdrop", "attn_pdrop", "summary_first_dropout"}),
        ("vit", {"hidden_dropout_prob", "attention_probs_dropout_prob"}),
    ],
)
def test_dropout_is_set_in_every_field_of_its_kind(kind: str, fields: set[str]) -> None:
    assert changed(kind, dropout=0.35) == dict.fromkeys(fields, 0.35)


@pytest.mark.parametrize(("kind", "fields"), [("swin", {"drop_path_rate"}), ("wav2vec2", {"layerdrop"}), ("convnext", {"drop_path_rate"})])
def test_stochastic_depth_is_what_leaves_whole_blocks_out(kind: str, fields: set[str]) -> None:
    assert changed(kind, stochastic_depth=0.35) == dict.fromkeys(fields, 0.35)


def test_configs_inside_a_config_are_set_too() -> None:
    config = AutoConfig.for_model("clip")
    override(config, dropout=0.2, stochastic_depth=None, where="x")
    assert (config.text_config.attention_dropout, config.vision_config.attention_dropout) == (0.2, 0.2)


def test_a_tower_without_stochastic_depth_says_so(folders: Folders) -> None:
    spec = TowerSpec(pretrained=str(folders["bert"]), stochastic_depth=0.1)
    with pytest.raises(ModelError, match=r"model.towers.words.stochastic_depth: its config has no field for stochastic depth"):
        load_tower("words", spec, modality="text", weights=Weights("meta"))


def test_the_tower_drops_as_it_is_told_and_its_folder_says_so(folders: Folders, tmp_path: Path) -> None:
    spec = TowerSpec(pretrained=str(folders["bert"]), dropout=0.5)
    tower = load_tower("words", spec, modality="text", weights=Weights())
    plain = load_tower("words", TowerSpec(pretrained=str(folders["bert"])), modality="text", weights=Weights())
    assert {module.p for module in tower.module.modules() if isinstance(module, nn.Dropout)} == {0.5}
    assert set(randomness(tower.module).values()) == {0.5}
    assert all(torch.equal(one, other) for one, other in zip(tower.module.parameters(), plain.module.parameters(), strict=True))
    tower.module.save_pretrained(tmp_path)
    assert AutoConfig.from_pretrained(tmp_path).hidden_dropout_prob == 0.5


def test_beside_the_name_of_a_plug_in_they_are_its_own_options() -> None:
    spec = TowerSpec.model_validate({"name": "vit", "dropout": 0.2})
    assert (spec.dropout, spec.options) == (None, {"dropout": 0.2})
