"""The key of a space covers what the weights do not say: settings of a model, code of plug-ins, how numbers are multiplied."""

from __future__ import annotations

import importlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from multitune.core import store
from multitune.models.features.filling import space_key
from multitune.models.features.keys import foreign
from multitune.models.replay import settle
from tests.models.features.conftest import ASKED, classifier, moving

Folders = Mapping[str, Path]
PLUGIN = """
from torch import nn

class Shown(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, *given, **more):
        return self.inner(*given, **more)
"""


def changed(folder: Path, into: Path, **settings: Any) -> Path:
    """The same weights with other settings."""
    shutil.copytree(folder, into)
    told = json.loads((into / "config.json").read_text("utf-8"))
    assert all(name in told and told[name] != value for name, value in settings.items())
    (into / "config.json").write_text(json.dumps(told | settings))
    return into


def key(family: Any, tower: str) -> str:
    """Of the space of a tower's features."""
    seams = settle(family, moving(family, "photo", "words")).seams
    return store.key(space_key(family, seams[tower], asked=ASKED))


@pytest.fixture(scope="module")
def keys(folders: Folders) -> Mapping[str, str]:
    """Those of the spaces of a classifier over frozen towers."""
    return {tower: key(classifier(folders), tower) for tower in ("photo", "words")}


@pytest.mark.parametrize(
    ("settings", "same"),
    [({"num_attention_heads": 4}, False), ({"layer_norm_eps": 1e-3}, False), ({"hidden_dropout_prob": 0.25}, True)],
    ids=["heads", "epsilon", "dropout"],
)
def test_the_same_weights_with_other_settings_are_other_features_unless_they_change_nothing(
    folders: Folders, keys: Mapping[str, str], tmp_path: Path, settings: dict[str, Any], same: bool
) -> None:
    towers = {"photo": str(changed(folders["vit"], tmp_path / "vit", **settings)), "words": str(folders["bert"])}
    family = classifier(folders, towers=towers)
    assert (key(family, "photo") == keys["photo"]) is same
    assert key(family, "words") == keys["words"]


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of a module that is not ours."""
    path = tmp_path / "shown_by_others.py"
    path.write_text(PLUGIN)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    return path


def test_other_code_of_a_plug_in_under_a_cut_is_other_features(folders: Folders, plugin: Path) -> None:
    family = classifier(folders)
    layer = family.tower["photo"].layers
    layer[0].mlp = importlib.import_module("shown_by_others").Shown(layer[0].mlp)
    seams = settle(family, moving(family, "photo", "words")).seams
    before, again, words = (store.key(space_key(family, seams[tower], asked=ASKED)) for tower in ("photo", "photo", "words"))
    plugin.write_text(PLUGIN + "# another\n")
    after, still = (store.key(space_key(family, seams[tower], asked=ASKED)) for tower in ("photo", "words"))
    assert before == again != after
    assert words == still
    assert foreign([family, torch.nn.Linear(1, 1), family.towers["photo"], "a"]) == {}
    assert [*foreign([layer[0].mlp])] == ["shown_by_others"]


def test_numbers_multiplied_in_another_way_are_other_features(folders: Folders) -> None:
    family = classifier(folders)
    seam = settle(family, moving(family, "photo", "words")).seams["words"]
    made = [space_key(family, seam, asked=ASKED)]
    torch.set_float32_matmul_precision("medium")
    made.append(space_key(family, seam, asked=ASKED))
    torch.set_float32_matmul_precision("highest")
    assert made[0] != made[1]
