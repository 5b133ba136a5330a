"""What a user gets wrong ends with exit code 2, says where, what was found and what would do, and loses nothing."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import multitune
from multitune.core.errors import UserError
from multitune.core.randomness import generator

pytestmark = pytest.mark.line
TINY = Path(multitune.__file__).parent / "models" / "bases" / "tiny"


def pictures(folder: Path, rows: int = 40) -> Path:
    """A JSONL table of small pictures of two classes; the table's path."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for number in range(rows):
        noise = generator("bad-input", number).integers(0, 255, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{number}.png")
        lines.append({"id": f"r{number}", "image": f"{number}.png", "label": "ab"[number % 2], "score": str(number), "words": "a b"})
    table = folder / "rows.jsonl"
    table.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    return table


def recipe(table: Path) -> dict[str, Any]:
    return {
        "name": "bad",
        "task": "classification",
        "data": {
            "source": {"name": "table", "path": str(table)},
            "parts": {"image": "image", "label": "category"},
            "answers": ["label"],
            "split": {"train": 0.6, "valid": 0.2, "test": 0.2},
        },
        "model": {"name": "fusion_encoder", "towers": {"image": "tiny/image"}},
        "train": {"steps": 2, "batch_size": 4, "threads": 1},
        "evaluate": {"intervals": 0, "baselines": False, "ablations": False},
    }


def put(made: dict[str, Any], path: str, value: Any) -> None:
    *steps, last = path.split(".")
    here = made
    for step in steps:
        here = here[step]
    here[last] = value


def rewritten(table: Path, change: Callable[[int, dict[str, Any]], dict[str, Any]]) -> Path:
    rows = [json.loads(line) for line in table.read_text("utf-8").splitlines()]
    table.write_text("".join(json.dumps(change(number, row)) + "\n" for number, row in enumerate(rows)), "utf-8")
    return table


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("task", "clasification", 'Did you mean "classification"'),
        ("model.name", "fusion_encodr", 'Did you mean "fusion_encoder"'),
        ("model.fuse", "concatt", 'Did you mean "concat"'),
        ("model.towers", {"imag": "tiny/image"}, "imag"),
        ("model.towers", {"image": "tiny/imagge"}, "tiny/imag"),
        ("model.towers", {"image": "tiny/text"}, "text"),
        ("model.towers", {"image": "/nowhere/at/all"}, "/nowhere/at/all"),
        ("strategy", "lorra", 'Did you mean "lora"'),
        ("strategy", {"name": "lora", "towers": ["visoin"]}, "visoin"),
        ("strategy", [{"pattern": "imag.*"}], 'Did you mean "image"'),
        ("strategy", [{"pattern": "head", "rate": 0}], "nothing moves"),
        ("loss", "cross_entropi", 'Did you mean "cross_entropy"'),
        ("loss", "regression", "label"),
        ("loss", "contrastive", "contrastive"),
        ("data.source.path", "nowhere.jsonl", "nowhere.jsonl"),
        ("data.source.name", "tabel", 'Did you mean "table"'),
        ("data.parts.image", "imagee", 'Did you mean "image"'),
        ("data.parts.label", {"modality": "category", "column": "lable"}, 'Did you mean "label"'),
        ("data.split", {"column": "label"}, "train"),
        ("train.balance", "image", "train.balance"),
        ("train.early_stop", {"metric": "valid/acuracy"}, "valid/acuracy"),
        ("data.parts.image", {"modality": "image", "augment": [{"affine": {"degrees": 5}}]}, "no augmentation is named"),
        ("evaluate.metrics", ["accuraccy"], "accuraccy"),
        ("train.precision", "fp17", "fp16"),
        ("evaluate.metrics", ["bleu"], "evaluate.metrics.0"),
    ],
)
def test_a_recipe_that_does_not_hold_is_refused_before_anything_is_spent(path: str, value: Any, words: str, tmp_path: Path) -> None:
    made = copy.deepcopy(recipe(pictures(tmp_path / "data")))
    put(made, path, value)
    with pytest.raises(UserError) as told:
        multitune.train(made, run=tmp_path / "run")
    assert told.value.exit_code == 2
    assert words in str(told.value)
    assert not any((tmp_path / "run" / name).exists() for name in ("checkpoints", "events.jsonl", "untuned.json"))


def test_early_stopping_may_wait_for_a_slice_whose_rows_come_late(tmp_path: Path) -> None:
    table = pictures(tmp_path / "data", rows=200)
    rows = [json.loads(line) | {"far": str(number >= 150)} for number, line in enumerate(table.read_text("utf-8").splitlines())]
    table.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    made = recipe(table)
    made["evaluate"]["slices"] = ["far"]
    made["train"]["early_stop"] = {"metric": "valid/slice/far=True/accuracy"}
    assert multitune.train(made, run=tmp_path / "run").ok


def test_early_stopping_may_wait_for_labels_whose_rows_come_late(tmp_path: Path) -> None:
    table = rewritten(pictures(tmp_path / "data", rows=200), lambda number, row: row | {"label": ["late", "far"] if number >= 120 else []})
    made = recipe(table)
    made["data"]["parts"]["label"] = "labels"
    made["evaluate"]["metrics"] = ["mean_average_precision"]
    made["train"]["early_stop"] = {"metric": "valid/map"}
    assert multitune.train(made, run=tmp_path / "run").ok


def test_a_plateau_may_wait_for_the_loss_of_validation(tmp_path: Path) -> None:
    made = recipe(pictures(tmp_path / "data"))
    made["strategy"] = "lp_ft"
    made["train"] = made.get("train", {}) | {"plateau": {"metric": "valid/loss"}}
    assert multitune.train(made, run=tmp_path / "run").ok


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda _, row: row | {"label": "a"}, "only class"),
        (lambda number, row: row | {"id": "same"}, "same"),
        (lambda number, row: row if number else {"id": "r0", "label": "a"}, "r0"),
        (lambda number, row: row if number else row | {"label": None}, "r0"),
    ],
    ids=["one-class", "same-id", "no-picture", "no-label"],
)
def test_a_table_that_does_not_hold_is_refused_with_its_row(
    change: Callable[[int, dict[str, Any]], dict[str, Any]], words: str, tmp_path: Path
) -> None:
    made = recipe(rewritten(pictures(tmp_path / "data"), change))
    with pytest.raises(UserError, match=words):
        multitune.train(made, run=tmp_path / "run")


def test_a_class_that_only_the_test_split_has_is_refused(tmp_path: Path) -> None:
    def placed(number: int, row: dict[str, Any]) -> dict[str, Any]:
        split = ("train", "train", "train", "valid", "test")[number % 5]
        return row | {"split": split, "label": "c" if number == 4 else row["label"]}

    made = recipe(rewritten(pictures(tmp_path / "data"), placed))
    made["data"]["split"] = {"column": "split"}
    with pytest.raises(UserError, match='"c"'):
        multitune.plan(made)


@pytest.mark.parametrize("text", ["", "\n", '{"id": 1\n', "id,image,label\n"])
def test_an_empty_or_torn_table_is_refused(text: str, tmp_path: Path) -> None:
    table = tmp_path / ("rows.csv" if text.startswith("id,") else "rows.jsonl")
    table.write_text(text)
    with pytest.raises(UserError, match=r"rows\.(csv|jsonl)"):
        multitune.train(recipe(table), run=tmp_path / "run")


def test_a_picture_that_cannot_be_read_is_quarantined_and_the_run_goes_on(tmp_path: Path) -> None:
    table = pictures(tmp_path / "data", 120)
    victim = tmp_path / "data" / "7.png"
    victim.write_bytes(victim.read_bytes()[:60])
    made = recipe(table)
    made["train"] |= {"steps": 40, "batch_size": 16}
    made["data"]["max_loss"] = 0.05
    result = multitune.train(made, run=tmp_path / "run")
    ledger = "".join(path.read_text("utf-8") for path in (tmp_path / "run" / "ledger").glob("*.jsonl"))
    assert result.figures["rows_quarantined"] == 1
    assert '"r7"' in ledger
    assert "quarantined" in ledger


def test_more_lost_rows_than_the_budget_stop_the_run(tmp_path: Path) -> None:
    table = pictures(tmp_path / "data", 60)
    for number in range(0, 60, 5):
        (tmp_path / "data" / f"{number}.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(UserError, match="max_loss"):
        multitune.train(recipe(table) | {"train": {"steps": 40, "batch_size": 16, "threads": 1}}, run=tmp_path / "run")


@pytest.mark.parametrize("damage", ["pickle", "missing", "extra", "shape", "remote-code"])
def test_a_model_folder_that_does_not_hold_is_refused(damage: str, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "model"
    shutil.copytree(TINY / "image", folder)
    weights = folder / "model.safetensors"
    tensors = load_file(weights)
    first = next(name for name in sorted(tensors) if "layer" in name and name.endswith("weight"))
    if damage == "pickle":
        weights.unlink()
        (folder / "pytorch_model.bin").write_bytes(b"\x80\x04canary")
    elif damage == "missing":
        save_file({name: tensor for name, tensor in tensors.items() if name != first}, weights, metadata={"format": "pt"})
    elif damage == "extra":
        save_file(tensors | {"encoder.layer.9.stray.weight": torch.zeros(3, 3)}, weights, metadata={"format": "pt"})
    elif damage == "shape":
        save_file(tensors | {first: torch.zeros(3, 3)}, weights, metadata={"format": "pt"})
    else:
        config = json.loads((folder / "config.json").read_text("utf-8"))
        config |= {"model_type": "own-model", "auto_map": {"AutoModel": "modeling_own.Own", "AutoConfig": "modeling_own.OwnConfig"}}
        (folder / "config.json").write_text(json.dumps(config))
        (folder / "modeling_own.py").write_text(f"open({str(tmp_path / 'canary')!r}, 'w').close()\n")
    made = recipe(pictures(tmp_path / "data"))
    made["model"]["towers"] = {"image": str(folder)}
    with pytest.raises(UserError) as told:
        multitune.train(made, run=tmp_path / "run")
    assert str(folder) in str(told.value) or "towers.image" in str(told.value) or "image" in str(told.value)
    assert not (tmp_path / "canary").exists()
