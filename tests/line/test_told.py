"""What is told on screen: rows that could not be read, findings, and where a run's folder stands for its artifact."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import multitune
from multitune.core.errors import ArtifactError
from multitune.verbs import predict
from tests.line.test_other_data import bad_table, png, predicted, recipe, rows

pytestmark = pytest.mark.line


def asked() -> dict[str, Any]:
    """A recipe over pictures of which the first is none."""
    made = recipe([row | ({"image": b"\x89PNG\r\n\x1a\nno"} if row["id"] == "r0" else {}) for row in rows()])
    made["data"]["max_loss"] = 0.5
    made["train"]["steps"] = 2
    return made


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that met one picture that is none."""
    folder = tmp_path_factory.mktemp("runs") / "told"
    multitune.train(asked(), run=folder)
    return folder


def test_a_runs_folder_opens_as_its_artifact(run: Path) -> None:
    assert multitune.load(run).folder == multitune.load(run / "artifact").folder


def test_a_run_that_has_not_finished_is_named_as_that(tmp_path: Path) -> None:
    (tmp_path / "request.json").write_text("{}", "utf-8")
    with pytest.raises(ArtifactError, match="a run that has not finished"):
        multitune.load(tmp_path)


def test_quarantined_rows_are_told_after_training(run: Path) -> None:
    text = multitune.train(asked(), run=run).text
    assert "1 of 6 train rows quarantined: r0, image: " in text
    assert f"; see {run / 'ledger'}" in text


def test_evaluate_tells_its_findings_on_screen(run: Path) -> None:
    result = multitune.evaluate(run, data=rows())
    assert result.findings
    assert all(finding.line() in result.text for finding in result.findings)


def test_predict_tells_how_many_rows_could_not_be_read_and_why(run: Path, tmp_path: Path) -> None:
    result = predicted(run, bad_table(tmp_path), tmp_path / "out.jsonl")
    assert result.ok
    assert "warning: " in result.text
    assert "4 of 6 rows could not be read; the first: row b1, image: is a URL" in result.text


def test_predict_is_not_fine_where_no_row_could_be_read(run: Path, tmp_path: Path) -> None:
    table = tmp_path / "none.jsonl"
    table.write_text('{"id": "x", "image": "gone.png"}\n', "utf-8")
    result = predict.build(predict.Options(artifact=run, overrides=(f"data={table}",), out=tmp_path / "out.jsonl"))
    assert not result.ok
    assert "error: " in result.text
    assert "none of the 1 rows could be read; the first: row x, image: there is no file gone.png." in result.text


def found(run: Path, data: Any, code: str) -> list[str]:
    return [one.message for one in multitune.evaluate(run, data=data).findings if one.code == code]


def trained_rows() -> list[dict[str, Any]]:
    return asked()["data"]["source"]["rows"]


def test_rows_of_the_train_split_are_told_when_measured(run: Path) -> None:
    (told,) = found(run, trained_rows(), "trained-on")
    assert told.startswith("6 of 12 rows were in the train split")


def test_other_rows_of_the_same_ids_are_not_those_of_the_train_split(run: Path) -> None:
    assert not found(run, [row | {"note": "other"} for row in trained_rows()], "trained-on")


def test_rows_of_a_table_are_told_wherever_it_lies(tmp_path: Path) -> None:
    for number in range(12):
        (tmp_path / f"{number}.png").write_bytes(png(number))
    lines = [json.dumps({**row, "image": str(tmp_path / f"{number}.png")}) + "\n" for number, row in enumerate(rows())]
    for name in ("all.jsonl", "copy.jsonl"):
        (tmp_path / name).write_text("".join(lines), "utf-8")
    made = recipe([])
    made["data"]["source"] = {"name": "table", "path": str(tmp_path / "all.jsonl")}
    multitune.train(made, run=tmp_path / "run")
    assert found(tmp_path / "run", tmp_path / "copy.jsonl", "trained-on")
    told = {split: {one.code for one in multitune.evaluate(tmp_path / "run", split=split).findings} for split in ("train", "test")}
    assert [split for split, codes in told.items() if "trained-on" in codes] == ["train"]
    (tmp_path / "all.jsonl").unlink()
    assert not found(tmp_path / "run", tmp_path / "copy.jsonl", "trained-on")


def test_a_class_that_the_model_does_not_know_is_told(run: Path) -> None:
    data = [row | {"label": "new"} if row["id"] in {"r1", "r2"} else row for row in rows()]
    assert found(run, data, "class-unknown") == ['2 of 12 rows are of 1 class that the model does not know, such as "new".']
    assert not found(run, rows(), "class-unknown")
