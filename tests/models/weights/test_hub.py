"""Hub ids: the cache before the network, a revision that is pinned, and what is said where neither has the model."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from multitune.core.errors import ModelError
from multitune.core.protocols import AnswerNeed, Needs, PartNeed
from multitune.core.recipe import make_recipe
from multitune.models import plan
from multitune.models.load import TowerSpec, Weights, load_tower
from multitune.models.where import locate

OLD, NEW = "1" * 40, "2" * 40
NEEDS = Needs({"image": PartNeed("image")}, {"label": AnswerNeed("category", ("a", "b"))})


@pytest.fixture(params=[True, False], ids=["HF_HUB_OFFLINE", "online by its settings"])
def cache(request: pytest.FixtureRequest, folders: Mapping[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache as huggingface_hub lays it out: `own/vit` at two commits, main is the newer; the network must not be asked."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", request.param)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    home = tmp_path / "models--own--vit"
    for commit, refs in ((OLD, ("v1",)), (NEW, ("main", "refs/pr/1"))):
        (home / "snapshots" / commit).mkdir(parents=True)
        for file in folders["vit"].iterdir():
            blob = home / "blobs" / f"{commit}-{file.name}"
            blob.parent.mkdir(exist_ok=True)
            shutil.copy(file, blob)
            (home / "snapshots" / commit / file.name).symlink_to(blob)
        for ref in refs:
            (home / "refs" / ref).parent.mkdir(parents=True, exist_ok=True)
            (home / "refs" / ref).write_text(commit)
    return home


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Hosts whose address was asked for; none is given."""
    hosts: list[str] = []

    def refuse(host: Any, *_: Any, **__: Any) -> Any:
        hosts.append(str(host))
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    return hosts


@pytest.mark.parametrize(("name", "commit"), [("own/vit", NEW), ("own/vit@v1", OLD), (f"own/vit@{OLD}", OLD), ("own/vit@refs/pr/1", NEW)])
def test_a_model_in_the_cache_is_taken_at_its_revision_and_the_network_is_not_asked(
    cache: Path, asked: list[str], folders: Mapping[str, Path], name: str, commit: str
) -> None:
    loaded = load_tower("x", TowerSpec(pretrained=name), modality="image", weights=Weights())
    assert (loaded.provenance.revision, asked) == (commit, [])
    local = load_tower("x", TowerSpec(pretrained=str(folders["vit"])), modality="image", weights=Weights()).module.state_dict()
    assert all(torch.equal(tensor, local[key]) for key, tensor in loaded.module.state_dict().items())


def test_the_plan_pins_the_commit(cache: Path) -> None:
    data = {"source": "chimes", "parts": {"image": "image", "label": "category"}, "answers": ["label"]}
    towers = {"image": {"pretrained": "own/vit", "revision": "v1"}}
    recipe = make_recipe({"name": "x", "task": "classification", "data": data, "model": {"towers": towers}})
    assert plan.state(recipe, NEEDS).values["model.towers.image.from"].value == f"hub own/vit@v1 at {OLD[:12]}"


def test_a_revision_beside_the_name_is_the_one_behind_the_at_sign() -> None:
    beside = TowerSpec.model_validate({"pretrained": "own/vit", "revision": "v1", "pool": "first"})
    assert beside == TowerSpec(pretrained="own/vit@v1", pool="first")


def test_a_revision_of_a_local_folder_is_refused(folders: Mapping[str, Path]) -> None:
    spec = TowerSpec.model_validate({"pretrained": str(folders["vit"]), "revision": "v1"})
    with pytest.raises(ModelError, match=r"revision belongs to a hub id"):
        load_tower("x", spec, modality="image", weights=Weights())


def test_a_cache_that_lacks_the_weights_is_enough_for_a_plan_and_asks_the_hub_for_more(cache: Path, asked: list[str]) -> None:
    (cache / "snapshots" / NEW / "model.safetensors").unlink()
    assert locate("own/vit", where="x", read_weights=False).revision == NEW
    assert asked == []
    with pytest.raises(ModelError, match=r"own/vit.* without its weights.*connect"):
        load_tower("x", TowerSpec(pretrained="own/vit"), modality="image", weights=Weights())


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("own/none", r"own/none.*not in the hub's cache.*local folder, or connect"),
        ("own/vit@v9", r'"own/vit" at v9.*not in the hub'),
        ("own/vit@../../main", "is no revision"),
        ("own/vit@", "is no revision"),
        ("own/v it", "is no hub id"),
        ("tiny/imgae", 'Did you mean "tiny/image"'),
    ],
)
def test_a_name_that_neither_the_cache_nor_the_network_has_says_what_would_do(cache: Path, asked: list[str], name: str, found: str) -> None:
    with pytest.raises(ModelError, match=f"model.towers.x: .*{found}"):
        load_tower("x", TowerSpec(pretrained=name), modality="image", weights=Weights())
