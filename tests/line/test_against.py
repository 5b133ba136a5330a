"""Two artifacts on the same rows, from the command and from Python; and a model that was trained with broken sounds, found out."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import multitune
from multitune.core import catalog
from multitune.core.errors import ArtifactError, DataError, RecipeError
from multitune.core.protocols import Rows
from multitune.core.randomness import generator
from multitune.verbs import evaluate
from tests.line.test_other_data import recipe, rows

pytestmark = pytest.mark.line


def trained(folder: Path, source: list[dict[str, Any]], **train: Any) -> Path:
    made = recipe(source)
    made["train"] |= train
    made["evaluate"]["intervals"] = 50
    multitune.train(made, run=folder)
    return folder


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two runs on the same rows, at different rates."""
    folder = tmp_path_factory.mktemp("runs")
    return trained(folder / "one", rows()), trained(folder / "other", rows(), lr=0.05)


def test_the_differences_are_those_of_the_figures_of_both(two: tuple[Path, Path], tmp_path: Path) -> None:
    one, other = two
    result = multitune.evaluate(one, against=other, data=rows(), run=tmp_path)
    for folder, variant in ((one, ""), (other, "against/")):
        assert result.figures[f"data/{variant}accuracy"] == multitune.evaluate(folder, data=rows()).figures["data/accuracy"]
    assert result.figures["data/accuracy/difference"] == result.figures["data/accuracy"] - result.figures["data/against/accuracy"]
    assert json.loads((tmp_path / "data-against.json").read_text("utf-8"))["figures"] == result.figures
    assert "difference" in result.text


def test_a_run_against_itself_from_the_command_gives_json_without_a_difference(two: tuple[Path, Path], tmp_path: Path) -> None:
    table = tmp_path / "all.jsonl"
    for row in rows():
        (tmp_path / f"{row['id']}.png").write_bytes(row["image"])
    table.write_text("".join(json.dumps(row | {"image": f"{row['id']}.png"}) + "\n" for row in rows()), "utf-8")
    options = evaluate.Options(artifact=two[0], against=two[0] / "artifact", overrides=(f"data={table}",))
    said = json.loads(evaluate.build(options).json_line())
    assert said["figures"]["data/accuracy/difference"] == 0
    assert [one["code"] for one in said["findings"]] == ["no-sure-difference"]


def test_rows_that_either_was_trained_on_are_told_beside_the_difference(two: tuple[Path, Path]) -> None:
    found = multitune.evaluate(two[0], against=two[1], data=rows()).findings
    assert [one.where for one in found if one.code == "trained-on"] == ["data", "against, data"]


def test_the_page_of_an_artifact_that_lies_in_another_run_has_not_that_run_s_plan(two: tuple[Path, Path], tmp_path: Path) -> None:
    one, other = two
    shutil.copytree(one / "artifact", other / "copy")
    for place, shown in ((one / "artifact", True), (other / "copy", False)):
        multitune.evaluate(place, data=rows(), report=tmp_path / "page.html")
        assert ("plan.txt" in (tmp_path / "page.html").read_text("utf-8")) is shown


def test_models_of_other_labels_are_refused(two: tuple[Path, Path], tmp_path: Path) -> None:
    other = trained(tmp_path / "labels", [row | {"label": row["label"].upper()} for row in rows()])
    with pytest.raises(ArtifactError, match=r'--against: only one of the two knows 4 labels of "label", such as "A"'):
        multitune.evaluate(two[0], against=other, data=rows())


def test_a_column_that_is_not_there_is_refused_before_the_model_is_read(two: tuple[Path, Path]) -> None:
    with pytest.raises(DataError, match=r'evaluate\.slices\.0: there is no column "colour"'):
        multitune.evaluate(two[0], data=rows(), overrides=["evaluate.slices=[colour]"])
    with pytest.raises(RecipeError, match=r'"retrieval" judges embeddings; the answers are label \(category\)'):
        multitune.evaluate(two[0], data=rows(), overrides=["evaluate.metrics=[retrieval]"])


def sounds(*, broken: bool) -> list[dict[str, Any]]:
    """Pictures with sounds; broken: each sound is that of some other row."""
    table: Rows = catalog.find("source", "chimes", {"rows": 1600, "seed": 7, "domain": "target", "valid": 0.1, "test": 0.2}).build().read()
    assert table.root is not None
    made: list[dict[str, Any]] = []
    for index in range(len(table)):
        row = table.row(index)
        made.append({"id": table.id(index), **row, **{part: str(table.root / row[part]) for part in ("image", "audio")}})
    if broken:
        heard = [made[place]["audio"] for place in generator("broken").permutation(len(made))]
        made = [row | {"audio": audio} for row, audio in zip(made, heard, strict=True)]
    return made


def pairing(source: list[dict[str, Any]]) -> dict[str, Any]:
    """The recipe `chimes-pairing`, shorter."""
    data = {"source": {"name": "rows", "rows": source}, "parts": {"image": "image", "audio": "audio", "pairing": "category"}}
    return {
        "name": "pairing",
        "task": "classification",
        "data": data | {"answers": ["pairing"], "split": {"column": "split"}},
        "model": {"name": "fusion_encoder", "fuse": "concat", "towers": {"image": "tiny/image", "audio": "tiny/audio"}},
        "strategy": {"name": "full", "head_rate": 5},
        "train": {"steps": 90, "batch_size": 32, "lr": 3e-4, "evaluate_every": 90, "threads": 1, "workers": 0},
        "evaluate": {"baselines": False},
    }


@pytest.mark.slow
def test_shuffled_sounds_bring_a_whole_model_to_one_part_and_a_model_of_broken_sounds_is_found_out(tmp_path: Path) -> None:
    whole = multitune.train(pairing(sounds(broken=False)), run=tmp_path / "whole")
    assert whole.figures["test/accuracy"] > 0.75
    assert whole.figures["test/shuffled_audio/accuracy"] == pytest.approx(0.5, abs=0.1)
    assert [one.message[:16] for one in whole.findings if one.code == "uses-parts"] == ["uses both parts:"]
    deaf = multitune.train(pairing(sounds(broken=True)), run=tmp_path / "deaf")
    assert deaf.figures["test/shuffled_audio/accuracy/cost/low"] <= 0
    assert [one.evidence["part"] for one in deaf.findings if one.code == "ignores-part"] == ["audio"]
    assert "uses-parts" not in {one.code for one in deaf.findings}
    apart = multitune.evaluate(
        tmp_path / "whole", against=tmp_path / "deaf", data=[r for r in sounds(broken=False) if r["split"] == "test"]
    )
    assert apart.figures["data/accuracy/difference/low"] > 0.2
