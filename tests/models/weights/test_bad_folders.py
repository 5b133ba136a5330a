"""Folders that do not hold: refused by the plan with what would do, exit code 2; drawn or refused by inspect; never a traceback."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from multitune.cli import main
from multitune.core.errors import ModelError
from multitune.models.load import TowerSpec, Weights, load_tower
from tests.models.conftest import DRAWN, VIT_FILES, write_folder

Folders = Mapping[str, Path]
RECIPE = """
name: bad
task: classification
data:
  source: {name: digits}
  parts: {image: image, label: category}
  answers: [label]
  split: {train: 0.8, valid: 0.1, test: 0.1}
model: {towers: {image: tiny/image}}
train: {epochs: 1, batch_size: 16}
"""


def changed(name: str, **settings: object) -> Callable[[Path, Folders], None]:
    """These settings of a JSON file are others."""

    def change(folder: Path, folders: Folders) -> None:
        path = folder / name
        path.write_text(json.dumps(json.loads(path.read_text()) | settings))

    return change


def without(name: str) -> Callable[[Path, Folders], None]:
    """This file is not there."""
    return lambda folder, folders: (folder / name).unlink()


def taken(name: str, kind: str) -> Callable[[Path, Folders], None]:
    """This file is another model's."""

    def take(folder: Path, folders: Folders) -> None:
        shutil.copy(folders[kind] / name, folder)

    return take


BAD: Mapping[str, tuple[Callable[[Path, Folders], None], str]] = {
    "a config without weights": (without("model.safetensors"), "has no model.safetensors"),
    "weights of another architecture": (taken("model.safetensors", "bert"), "Name the folder whose config fits its weights"),
    "a processor of another model": (taken("preprocessor_config.json", "wav2vec2"), "Use the processor that was saved with these weights"),
    "no processor": (without("preprocessor_config.json"), "Add the image processor that belongs to these weights"),
    "a processor of another size": (changed("preprocessor_config.json", size={"height": 48, "width": 48}), "Ask for image_size: 48"),
    "a model with code of its own": (changed("config.json", model_type="own", auto_map={"AutoConfig": "own.C"}), "which is never run"),
    "a processor with code of its own": (
        changed("preprocessor_config.json", image_processor_type="Own", auto_map={"AutoImageProcessor": "own.P"}), "which is never run",
    ),
    "a config of words": (changed("config.json", hidden_size="x"), "expected int, got str"),
    "a config of no patches": (changed("config.json", patch_size=0), "Check config.json"),
    "a config of an unknown activation": (changed("config.json", hidden_act="nope"), "'nope'"),
}  # fmt: skip


def shown(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    """What a command ends with, and what it prints on one line."""
    with pytest.raises(SystemExit) as ended:
        main(list(words))
    told = capsys.readouterr()
    return int(ended.value.code or 0), " ".join((told.out + told.err).split())


@pytest.mark.parametrize("bad", BAD)
def test_a_folder_that_does_not_hold_ends_the_plan_with_what_would_do(
    folders: Folders, tmp_path: Path, capsys: pytest.CaptureFixture[str], bad: str
) -> None:
    change, said = BAD[bad]
    folder = shutil.copytree(folders["vit"], tmp_path / "vit")
    change(folder, folders)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    code, told = shown(capsys, "plan", str(tmp_path / "recipe.yaml"), f"model.towers.image={folder}")
    assert code == 2, told
    assert "model.towers.image" in told
    assert said in told
    assert "Traceback" not in told


@pytest.mark.parametrize("bad", BAD)
def test_inspect_draws_or_refuses_a_folder_that_does_not_hold(
    folders: Folders, tmp_path: Path, capsys: pytest.CaptureFixture[str], bad: str
) -> None:
    change, _ = BAD[bad]
    folder = shutil.copytree(folders["vit"], tmp_path / "vit")
    change(folder, folders)
    code, told = shown(capsys, "inspect", str(folder))
    assert code in (0, 2), told
    assert "Traceback" not in told


def test_numbers_that_are_not_finite_end_training_before_its_first_step(
    folders: Folders, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(folders["vit"], tmp_path / "vit")
    state = load_file(folder / "model.safetensors")
    state["layernorm.bias"][0] = torch.nan
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    run = tmp_path / "run"
    code, told = shown(capsys, "train", str(tmp_path / "recipe.yaml"), f"model.towers.image={folder}", "--run", str(run))
    assert (code, "layernorm.bias holds numbers that are not finite" in told) == (2, True), told
    assert not (run / "checkpoints").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["strategy={name: partial, blocks: 9}"], r"has 5 blocks, not 9. Ask for fewer, or name tensors with patterns"),
        (["strategy={name: partial, patterns: [imgae.layers]}"], 'Did you mean "image'),
        (["strategy={name: lora, towers: [imgae]}"], 'Did you mean "image"'),
    ],
)
def test_a_tuning_of_what_is_not_there_ends_the_plan(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    code, told = shown(capsys, "plan", str(tmp_path / "recipe.yaml"), *words)
    assert (code, said in told) == (2, True), told


def test_a_tower_without_blocks_is_refused_under_partial(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_folder(tmp_path / "flat", "vit", DRAWN | {"num_hidden_layers": 0, "image_size": 32, "patch_size": 16}, VIT_FILES)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    words = ("plan", str(tmp_path / "recipe.yaml"), f"model.towers.image={folder}")
    assert shown(capsys, *words, "strategy=partial")[0] == 0
    code, told = shown(capsys, *words, "strategy={name: partial, blocks: 2}")
    assert (code, "no chain of blocks was found in the tower image" in told) == (2, True), told


def test_a_tokenizer_of_another_model_is_refused(folders: Folders, tmp_path: Path) -> None:
    folder = shutil.copytree(folders["bert"], tmp_path / "bert")
    words = json.loads((folder / "tokenizer.json").read_text())
    words["model"]["vocab"] |= {f"word{place}": 100 + place for place in range(50)}
    (folder / "tokenizer.json").write_text(json.dumps(words))
    with pytest.raises(ModelError, match=r"gives ids up to 149; the model has embeddings for 16.*saved with these weights"):
        load_tower("x", TowerSpec(pretrained=str(folder)), modality="text", weights=Weights())


def test_an_image_processor_beside_a_tower_of_sounds_is_refused(folders: Folders, tmp_path: Path) -> None:
    folder = shutil.copytree(folders["wav2vec2"], tmp_path / "sounds")
    shutil.copy(folders["vit"] / "preprocessor_config.json", folder)
    with pytest.raises(ModelError, match=r"is an image processor \(ViTImageProcessor\).*feature extractor"):
        load_tower("x", TowerSpec(pretrained=str(folder)), modality="audio", weights=Weights())
