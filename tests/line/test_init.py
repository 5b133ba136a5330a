"""The recipe that `init` writes trains as it is: pictures by class, a CSV with picture paths and text, a JSONL with sound."""

from __future__ import annotations

from pathlib import Path

import pytest

import multitune
from tests.verbs.making import classes, medium, written_csv, written_jsonl

pytestmark = pytest.mark.line
FEW = ("train.epochs=null", "train.steps=2", "train.threads=1", "train.workers=0", "evaluate.intervals=0", "evaluate.ablations=false")


def trained(tmp_path: Path, data: Path) -> set[str]:
    made = multitune.init(data, out=tmp_path / "recipe.yaml")
    result = multitune.train(made.paths["recipe"], overrides=(*FEW, "evaluate.baselines=false"), run=tmp_path / "run")
    assert made.ok
    assert result.ok
    return set(result.figures)


def test_a_folder_of_pictures_by_class(tmp_path: Path) -> None:
    assert "test/accuracy" in trained(tmp_path, classes(tmp_path / "my pets", ["cat", "dog"], rows=16))


def test_a_csv_with_a_mark_semicolons_chinese_names_and_paths_with_spaces(tmp_path: Path) -> None:
    files = [medium(tmp_path / "图片 1" / f"图 {n}.png", "image", n) for n in range(16)]
    rows = [["图片", "描述"], *([f"图片 1/{path.name}", f"第 {n} 张图"] for n, path in enumerate(files))]
    table = written_csv(tmp_path / "表.csv", rows, separator=";", encoding="utf-8-sig")
    assert "test/描述_to_图片/r_at_1" in trained(tmp_path, table)


@pytest.mark.parametrize(("column", "figure"), [("label", "test/accuracy"), ("text", "test/bleu")])
def test_a_jsonl_with_sound(tmp_path: Path, column: str, figure: str) -> None:
    files = [medium(tmp_path / f"{n}.wav", "audio", n) for n in range(16)]
    said = {"label": ["high", "low"] * 8, "text": [f"the word {n} and more" for n in range(16)]}[column]
    table = written_jsonl(tmp_path / "a.jsonl", ({"audio": path.name, column: text} for path, text in zip(files, said, strict=True)))
    assert figure in trained(tmp_path, table)
