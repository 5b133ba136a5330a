"""Towers, blocks and public names, found from the model itself."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from transformers import AutoConfig, AutoModel

from multitune.core import catalog
from multitune.core.errors import ModelError
from multitune.core.protocols import AnswerNeed, Needs, PartNeed
from multitune.models import anatomy, tokens
from multitune.models.load import TowerSpec, Weights, load_tower
from multitune.models.predictor import Forgetful
from multitune.models.replay.probing import probe_sample

Folders = Mapping[str, Path]
NEEDS = Needs({"photo": PartNeed("image"), "words": PartNeed("text")}, {"label": AnswerNeed("category", ("a", "b"))})


@pytest.fixture
def family(folders: Folders) -> Any:
    towers = {"photo": str(folders["vit"]), "words": str(folders["bert"])}
    return catalog.find("family", "fusion_encoder", {"towers": towers}).build(NEEDS, Weights())


@pytest.mark.parametrize(
    ("kind", "modality", "count", "last"),
    [
        ("vit", "image", 3, "2"),
        ("swin", "image", 3, "blocks.1"),
        ("bert", "text", 3, "2"),
        ("wav2vec2", "audio", 3, "2"),
        ("resnet", "image", 3, "layers.1"),
    ],
)
def test_blocks_come_in_call_order_with_stages_opened(folders: Folders, kind: str, modality: str, count: int, last: str) -> None:
    module = load_tower("x", TowerSpec(pretrained=str(folders[kind])), modality=modality, weights=Weights("meta")).module
    blocks = anatomy.block_paths(module)
    assert len(blocks) == count
    assert blocks[-1].endswith(last)


def test_blocks_run_once_each_in_the_order_named(folders: Folders) -> None:
    loaded = load_tower("x", TowerSpec(pretrained=str(folders["swin"])), modality="image", weights=Weights())
    called: list[str] = []
    for path in anatomy.block_paths(loaded.module):
        loaded.module.get_submodule(path).register_forward_hook(lambda *_, path=path: called.append(path))
    loaded.module(pixel_values=torch.zeros(1, 3, 32, 32))
    assert called == anatomy.block_paths(loaded.module)


def test_a_model_of_several_modalities_has_the_outermost_single_ones_as_towers() -> None:
    small = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    config = AutoConfig.for_model("clip", text_config=small, vision_config=small | {"image_size": 16, "patch_size": 16})
    with torch.device("meta"):
        model = AutoModel.from_config(config)
    assert {path: found.modality for path, found in tokens.outermost(model).items()} == {"text_model": "text", "vision_model": "image"}


def test_every_parameter_has_one_public_name_under_its_part_or_its_role(family: Any) -> None:
    found = anatomy.find(family)
    assert len(set(found.names.values())) == len(list(family.named_parameters()))
    assert {name.split(".")[0] for name in found.parameters} == {"photo", "words", "fusion", "head"}
    assert found.left == ("fusion", "head")
    assert found.num_parameters == sum(parameter.numel() for parameter in family.parameters())


def test_a_path_means_everything_below_it(family: Any) -> None:
    found = anatomy.find(family)
    below = found.match("words.encoder.layer.1")
    assert below == found.match("words.encoder.layer.1.*")
    assert len(below) == 16
    assert found.match("photo") == [name for name in found.parameters if name.startswith("photo.")]
    assert found.match("head.label.weight") == ["head.label.weight"]


@pytest.mark.parametrize(("pattern", "near"), [("phoot", "photo"), ("haed", "head"), ("words.encoder.layers", "words.encoder.layer")])
def test_a_pattern_that_matches_nothing_is_refused_with_the_nearest(family: Any, pattern: str, near: str) -> None:
    with pytest.raises(ModelError, match=f'matches nothing.*Did you mean "{near}"'):
        anatomy.find(family).match(pattern, where="strategy")


def test_a_tower_that_is_not_there_is_refused_with_the_nearest(family: Any) -> None:
    with pytest.raises(ModelError, match=r'"wrods" matches no tower; towers are photo, words \(and fusion, head\).*Did you mean "words"'):
        anatomy.find(family).tower("wrods")


def test_adapters_do_not_change_the_names_of_what_they_wrap(family: Any) -> None:
    before = anatomy.find(family)
    tower = family.towers["words"]
    peft.inject_adapter_in_model(peft.LoraConfig(r=2, target_modules=anatomy.linear_targets(tower)), tower)
    after = anatomy.find(family)
    assert set(before.parameters) <= set(after.parameters)
    assert all("lora_" in name for name in set(after.parameters) - set(before.parameters))


def test_the_base_under_adapters_has_its_own_names(family: Any) -> None:
    tower = family.towers["words"]
    before = {name: tensor.clone() for name, tensor in tower.state_dict().items()}
    peft.inject_adapter_in_model(peft.LoraConfig(r=2, target_modules=anatomy.linear_targets(tower)), tower)
    state = tower.state_dict()
    base = {public: state[name] for name, public in tokens.base_names(tower).items()}
    assert base.keys() == before.keys()
    assert all(torch.equal(base[name], before[name]) for name in before)


def test_linear_targets_are_the_linear_layers_of_the_blocks(family: Any) -> None:
    tower = family.towers["words"]
    targets = anatomy.linear_targets(tower)
    assert len(targets) == 3 * 6
    assert all(isinstance(tower.get_submodule(path), torch.nn.Linear) for path in targets)
    assert not any("pooler" in path for path in targets)


def test_what_no_gradient_reaches_is_found_and_nothing_is_left_behind(family: Any) -> None:
    family.towers["words"].requires_grad_(False)
    family.train()
    batch = family.preparer.collate([family.preparer.prepare(probe_sample(NEEDS, seed=0), Forgetful())])
    silent = anatomy.unused(family, batch)
    assert {name.rpartition(".")[0] for name in silent} == {"photo.pooler.dense", "words.pooler.dense"}
    assert all(parameter.grad is None for parameter in family.parameters())
    assert not any(parameter.requires_grad for parameter in family.towers["words"].parameters())
    assert all(module.training for module in family.modules())
