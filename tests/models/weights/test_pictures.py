"""Pictures of another size, and of another number of channels, than a tower was made for."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModel, CLIPVisionModel

from multitune.core.errors import ModelError
from multitune.core.protocols import AnswerNeed, Needs, PartNeed
from multitune.core.recipe import make_recipe
from multitune.models import plan, tokens
from multitune.models.encoders import save_towers
from multitune.models.load import Tower, TowerSpec, Weights, load_tower
from multitune.models.weights.limits import way_into
from tests.models.conftest import DRAWN, VIT_FILES, write_folder

Folders = Mapping[str, Path]
SIZES = DRAWN | {"image_size": 32, "patch_size": 8}
WIDE = {"preprocessor_config.json": {"image_processor_type": "ViTImageProcessor", "size": {"height": 64, "width": 64}}}
GREY = {"preprocessor_config.json": VIT_FILES["preprocessor_config.json"] | {"image_mean": [0.5], "image_std": [0.5]}}


def tower(folder: Path, weights: Weights | None = None, **options: object) -> Tower:
    spec = TowerSpec.model_validate({"pretrained": str(folder), **options})
    return load_tower("x", spec, modality="image", weights=weights or Weights())


def pixels(made: Tower, picture: np.ndarray) -> torch.Tensor:
    way = way_into("image", made.module, made.processor)
    return way.batch([way.row(picture)])["pixel_values"]


def picture() -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (50, 70, 3), dtype=np.uint8)


@pytest.fixture
def made(tmp_path: Path) -> Callable[..., Path]:
    """A folder of a kind, with these changes to its sizes and these files beside it."""

    def make(kind: str, files: Mapping[str, Any] = VIT_FILES, **sizes: Any) -> Path:
        return write_folder(tmp_path / kind, kind, SIZES | sizes, files)

    return make


@pytest.mark.parametrize("kind", ["vit", "dinov2", "siglip_vision_model", "deit"])
def test_a_resized_tower_gives_what_transformers_gives_by_interpolating(made: Callable[..., Path], kind: str) -> None:
    folder = made(kind)
    resized = tower(folder, image_size=48)
    seen = pixels(resized, picture())
    assert seen.shape == (1, 3, 48, 48)
    theirs = AutoModel.from_pretrained(folder).eval()
    option = {"interpolate_pos_encoding": True} if tokens.takes(theirs, "interpolate_pos_encoding") else {}
    with torch.no_grad():
        expected, given = theirs(seen, **option).last_hidden_state, resized.module(seen).last_hidden_state
    torch.testing.assert_close(given, expected, rtol=1e-5, atol=1e-5)


def test_the_picture_tower_of_a_clip_is_resized_with_its_crop(clip: Path) -> None:
    resized = tower(clip, image_size=64)
    seen = pixels(resized, picture())
    assert (seen.shape, resized.processor.size.shortest_edge) == ((1, 3, 64, 64), 64)
    with torch.no_grad():
        expected = CLIPVisionModel.from_pretrained(clip).eval()(seen, interpolate_pos_encoding=True).last_hidden_state
        torch.testing.assert_close(resized.module(seen).last_hidden_state, expected, rtol=1e-5, atol=1e-5)


def test_towers_without_positions_only_get_larger_pictures(folders: Folders) -> None:
    for kind in ("resnet", "swin"):
        resized = tower(folders[kind], image_size=64)
        assert pixels(resized, picture()).shape == (1, 3, 64, 64)
        assert all(finding.code == "picture-size" for finding in resized.report.findings)


def test_on_the_meta_device_a_resized_tower_has_the_same_shapes_and_findings(folders: Folders) -> None:
    real, meta = tower(folders["vit"], image_size=64), tower(folders["vit"], Weights("meta"), image_size=64)
    shapes = [[(name, p.shape, p.dtype) for name, p in one.module.named_parameters()] for one in (real, meta)]
    assert (shapes[0], real.report, real.width) == (shapes[1], meta.report, meta.width)
    assert all(parameter.is_meta for parameter in meta.module.parameters())


def test_a_resized_tower_is_saved_with_its_size_and_opens_again_to_the_same_bits(folders: Folders, tmp_path: Path) -> None:
    resized = tower(folders["vit"], image_size=64)
    save_towers({"x": resized}, tmp_path)
    assert json.loads((tmp_path / "towers" / "x" / "config.json").read_text())["image_size"] == 64
    again = tower(folders["vit"], Weights("artifact", tmp_path), image_size=64)
    plain = AutoModel.from_pretrained(tmp_path / "towers" / "x")
    seen = pixels(resized, picture())
    assert torch.equal(pixels(again, picture()), seen)
    with torch.no_grad():
        outputs = [one(seen).last_hidden_state for one in (resized.module, again.module, plain.eval())]
    assert torch.equal(outputs[0], outputs[1])
    assert torch.equal(outputs[0], outputs[2])


def test_the_plan_tells_of_positions_that_were_interpolated(folders: Folders) -> None:
    data = {"source": "chimes", "parts": {"image": "image", "label": "category"}, "answers": ["label"]}
    towers = {"image": {"pretrained": str(folders["vit"]), "image_size": 64}}
    recipe = make_recipe({"name": "x", "task": "classification", "data": data, "model": {"towers": towers}})
    outline = plan.state(recipe, Needs({"image": PartNeed("image")}, {"label": AnswerNeed("category", ("a", "b"))}))
    (told,) = [finding for finding in outline.findings if finding.code == "positions-resized"]
    assert "from 2 x 2 to 4 x 4 patches (32 -> 64): embeddings.position_embeddings" in told.message


def test_a_size_for_a_tower_that_is_no_picture_tower_is_refused(folders: Folders) -> None:
    with pytest.raises(ModelError, match=r"model.towers.x.image_size: .* takes none"):
        load_tower("x", TowerSpec(pretrained=str(folders["bert"]), image_size=64), modality="text", weights=Weights())


def test_tables_that_are_no_grid_of_patches_are_refused(made: Callable[..., Path]) -> None:
    folder = made("beit", use_relative_position_bias=True, use_shared_relative_position_bias=False)
    with pytest.raises(ModelError, match=r"relative_position_bias_table .*not a table of one grid of patches"):
        tower(folder, image_size=64)


@pytest.mark.parametrize("mode", ["pretrained", "meta"])
def test_a_processor_that_makes_another_size_is_refused_where_the_tower_cannot_take_it(made: Callable[..., Path], mode: Any) -> None:
    folder = made("vit", WIDE)
    with pytest.raises(ModelError, match=r"makes pictures of 64 x 64, the tower was built for 32 x 32.*Ask for image_size: 64"):
        tower(folder, Weights(mode))
    assert tower(folder, Weights(mode), image_size=64).module.config.image_size == 64


def test_a_processor_that_makes_another_size_is_told_where_the_tower_takes_it(made: Callable[..., Path]) -> None:
    (told,) = tower(made("dinov2", WIDE)).report.findings
    assert (told.code, told.evidence) == ("picture-size", {"processor": [64, 64], "tower": [32, 32]})


def test_a_tower_of_one_channel_gets_grey_pictures(made: Callable[..., Path]) -> None:
    grey = tower(made("vit", GREY, num_channels=1))
    seen = pixels(grey, picture())
    assert seen.shape == (1, 1, 32, 32)
    red, green, blue = (pixels(grey, np.full((8, 8, 3), colour, np.uint8)).mean() for colour in ((255, 0, 0), (0, 255, 0), (0, 0, 255)))
    assert green > red > blue
    even = np.repeat(picture()[..., :1], 3, axis=2)
    assert torch.allclose(pixels(grey, even), pixels(tower(made("vit")), even)[:, :1], atol=1e-6)


def test_a_tower_of_one_channel_says_so_in_its_contract_and_others_do_not(made: Callable[..., Path]) -> None:
    grey = tower(made("vit", GREY, num_channels=1))
    assert way_into("image", grey.module, grey.processor).describe()["channels"] == 1
    plain = tower(made("vit"))
    assert "channels" not in way_into("image", plain.module, plain.processor).describe()


def test_a_processor_of_three_colours_on_a_tower_of_one_channel_is_refused(made: Callable[..., Path]) -> None:
    with pytest.raises(ModelError, match="image_mean and image_std hold one number"):
        tower(made("vit", num_channels=1))


@pytest.mark.parametrize("mode", ["pretrained", "meta"])
def test_a_tower_of_four_channels_is_refused_naming_both(made: Callable[..., Path], mode: Any) -> None:
    with pytest.raises(ModelError, match=r"reads pictures of 4 channels \(num_channels\), its processor gives 3"):
        tower(made("vit", num_channels=4), Weights(mode))


@pytest.mark.parametrize("mode", ["pretrained", "meta"])
def test_a_processor_of_another_modality_is_refused(folders: Folders, tmp_path: Path, mode: Any) -> None:
    folder = shutil.copytree(folders["vit"], tmp_path / "mixed")
    shutil.copy(folders["wav2vec2"] / "preprocessor_config.json", folder)
    with pytest.raises(ModelError, match=r"model.towers.x: .*"):
        tower(folder, Weights(mode))
