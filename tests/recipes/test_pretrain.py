"""How a trained tower becomes a folder of the package."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from recipes.pretrain import TOWERS, card, halve
from recipes.tiny_probe import below_the_gate
from recipes.tiny_start import write_start


def test_a_packaged_tower_has_the_tensors_of_its_start_folder_alone_in_half_precision(tmp_path: Path) -> None:
    write_start(tmp_path / "start")
    start, trained, packed = tmp_path / "start" / "text", tmp_path / "trained", tmp_path / "packed"
    weights = load_file(start / "model.safetensors")
    for folder in (trained, packed):
        folder.mkdir()
    save_file({"added.later": torch.ones(2), **{name: value + 0.25 for name, value in weights.items()}}, trained / "model.safetensors")
    halve(trained, start, packed)
    found = load_file(packed / "model.safetensors")
    assert found.keys() == weights.keys()
    assert all(torch.equal(found[name], (weights[name] + 0.25).half()) for name in weights)
    assert {file.name for file in packed.iterdir()} == {file.name for file in start.iterdir()}


def test_a_card_names_recipe_steps_and_probes() -> None:
    figures = {step: {"steps": 1_200.0, "seconds": 61.4, "test/shape/accuracy": 0.95} for tower in TOWERS.values() for step in tower.steps}
    text = card("image", figures, {"shape_group": 0.93})
    assert "| `recipes/pretrain-image.yaml` | 0 | 1,200 | 61 |" in text
    assert "| shape group | 0.930 |" in text


def test_a_probe_below_the_gate_is_named() -> None:
    assert below_the_gate({"shape": 0.84, "colour": 0.99}) == ["shape 0.840 < 0.85"]
