"""What is asked of a finished run: other data, rows that cannot be read, rows in memory, overrides that come too late."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import multitune
from multitune.core.errors import DataError, RecipeError
from multitune.core.protocols import Category
from multitune.core.randomness import generator
from multitune.verbs import predict

pytestmark = pytest.mark.line


def pixels(number: int) -> np.ndarray:
    return generator("other-data", number).integers(0, 255, (16, 16, 3), dtype=np.uint8)


def png(number: int) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels(number)).save(stream, "PNG")
    return stream.getvalue()


def rows(count: int = 12) -> list[dict[str, Any]]:
    """Rows whose pictures are bytes; the first half is to train on."""
    return [{"id": f"r{n}", "image": png(n), "label": "ab"[n % 2], "part": ("train", "test")[n % 4 > 1]} for n in range(count)]


def recipe(source: Any) -> dict[str, Any]:
    return {
        "name": "other",
        "task": "classification",
        "data": {
            "source": {"name": "rows", "rows": source},
            "parts": {"image": {"modality": "image", "missing": "drop"}, "label": "category"},
            "answers": ["label"],
            "split": {"column": "part"},
        },
        "model": {"name": "fusion_encoder", "towers": {"image": "tiny/image"}},
        "strategy": {"name": "partial", "blocks": 0},
        "train": {"steps": 1, "batch_size": 4, "threads": 1, "workers": 0},
        "evaluate": {"intervals": 0, "baselines": False, "ablations": False},
    }


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "other"
    multitune.train(recipe(rows()), run=folder)
    return folder


class MapStyle:
    """A data set of pictures as arrays."""

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {**rows()[index], "image": pixels(index)}


@pytest.mark.parametrize("source", [pa.Table.from_pylist(rows()), MapStyle()], ids=["arrow", "map-style"])
def test_rows_in_memory_of_any_form_train_to_the_same_figures(source: Any, run: Path, tmp_path: Path) -> None:
    made = multitune.train(recipe(source), run=tmp_path / "run")
    same = json.loads((run / "result.json").read_text("utf-8"))["figures"]
    assert {name: value for name, value in made.figures.items() if name.startswith("test/")} == {
        name: value for name, value in same.items() if name.startswith("test/")
    }
    assert len((tmp_path / "run" / "request.json").read_bytes()) < 3_000


def test_the_same_rows_in_memory_are_the_same_request(run: Path) -> None:
    assert "finished before" in multitune.train(recipe(rows()), run=run).text


def bad_table(folder: Path) -> Path:
    """Pictures, a URL, an empty cell, a text, a torn file, and a picture again."""
    for number in (0, 5):
        (folder / f"{number}.png").write_bytes(png(number))
    (folder / "torn.png").write_bytes(png(1)[:50])
    cells = ["0.png", "https://example.org/a.png", None, "iVBO" * 2000, "torn.png", "5.png"]
    table = folder / "bad.jsonl"
    table.write_text("".join(json.dumps({"id": f"b{n}", "image": cell}) + "\n" for n, cell in enumerate(cells)), "utf-8")
    return table


def predicted(run: Path, table: Path, out: Path) -> Any:
    options = predict.Options(artifact=run, overrides=(f"data={table}",), out=out, run=out.parent / "kept")
    return predict.build(options)


def read(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".parquet":
        return pq.read_table(path).to_pylist()
    if path.suffix == ".csv":
        with path.open(encoding="utf-8", newline="") as stream:
            return [dict(row) for row in csv.DictReader(stream)]
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
@pytest.mark.parametrize("chunk", [2, 256])
def test_every_row_is_in_the_output_with_its_cause(
    suffix: str, chunk: int, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predict, "CHUNK", chunk)
    result = predicted(run, bad_table(tmp_path), tmp_path / f"out{suffix}")
    made = read(tmp_path / f"out{suffix}")
    assert [row["id"] for row in made] == [f"b{n}" for n in range(6)]
    assert dict(result.figures) == {"rows": 6.0, "rows_lost": 4.0}
    causes = ["", "image: is a URL", "image: is missing", "image: is a text of 8,000 characters", "image: was cut", ""]
    assert all(row["cause"].startswith(cause) and bool(row["cause"]) == bool(cause) for row, cause in zip(made, causes, strict=True))
    assert [bool(row.get("label")) for row in made] == [not cause for cause in causes]
    assert len((tmp_path / "kept" / "out-ledger.jsonl").read_text("utf-8").splitlines()) == 4


def test_a_row_says_the_same_among_bad_rows_as_alone(run: Path, tmp_path: Path) -> None:
    predicted(run, bad_table(tmp_path), tmp_path / "out.jsonl")
    alone = multitune.load(run / "artifact").predict({"image": png(5)}).answers["label"]
    row = read(tmp_path / "out.jsonl")[5]
    assert isinstance(alone, Category)
    assert (row["label"], row["label.score"]) == (alone.value, alone.scores[alone.value])


def test_in_python_a_row_that_cannot_be_read_is_named(run: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="row b1: image: is a URL"):
        multitune.predict(run, bad_table(tmp_path))
    with pytest.raises(DataError, match="row r1: image: is missing"):
        multitune.predict(run, [{"id": "r0", "image": png(0)}, {"id": "r1", "image": None}])


def test_an_output_that_stops_half_way_leaves_nothing(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predict, "CHUNK", 2)
    monkeypatch.setitem(predict.WRITERS, ".jsonl", broken_writer)  # type: ignore[misc]
    with pytest.raises(ZeroDivisionError):
        predicted(run, bad_table(tmp_path), tmp_path / "out.jsonl")
    assert not [path.name for path in tmp_path.iterdir() if "out" in path.name]


def broken_writer(path: Path, columns: object) -> Any:
    path.write_text("half")
    raise ZeroDivisionError


@pytest.mark.parametrize("text", ["model.fuse=late_sum", "train.lr=9", "strategy=lora", "seed=3", "task=regression"])
def test_an_override_that_comes_too_late_is_refused(text: str, run: Path, tmp_path: Path) -> None:
    table = bad_table(tmp_path)
    with pytest.raises(RecipeError, match="trained already"):
        multitune.evaluate(run, data=table, overrides=[text])
    with pytest.raises(RecipeError, match="trained already"):
        predict.build(predict.Options(artifact=run, overrides=(f"data={table}", text), out=tmp_path / "out.jsonl"))


def test_a_part_keeps_the_modality_that_the_model_reads(run: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="the model reads it as image"):
        multitune.evaluate(run, data=rows(), overrides=["data.parts.image.modality=text"])


def test_evaluating_leaves_the_runs_own_ledger_alone(run: Path) -> None:
    before = {path.name: path.read_bytes() for path in (run / "ledger").iterdir()}
    bad = [*rows(), {"id": "bad", "image": b"x", "label": "a"}]
    multitune.evaluate(run, data=bad, overrides=["data.max_loss=0.5"], run=run)
    assert {path.name: path.read_bytes() for path in (run / "ledger").iterdir()} == before
    assert '"bad"' in (run / "data-ledger.jsonl").read_text("utf-8")


def test_rows_that_end_an_evaluation_are_named_and_kept(run: Path, tmp_path: Path) -> None:
    bad = [{**row, "image": b"x"} if row["id"] in {"r3", "r4"} else row for row in rows()]
    with pytest.raises(DataError, match=r"2 of 12 rows cannot be read.*: r3, image: .*; r4, image: "):
        multitune.evaluate(run, data=bad, run=tmp_path)
    assert '"r3"' in (tmp_path / "data-ledger.jsonl").read_text("utf-8")


def test_rows_that_end_a_run_are_named_and_kept(tmp_path: Path) -> None:
    bad = [{**row, "image": b"x"} if row["id"] in {"r2", "r3"} else row for row in rows()]
    with pytest.raises(DataError, match=r"2 of 6 rows cannot be read.*: r2, image: .*; r3, image: "):
        multitune.train(recipe(bad), run=tmp_path / "run")
    assert '"r3"' in (tmp_path / "run" / "ledger" / "stopped.jsonl").read_text("utf-8")


def test_one_bad_test_row_does_not_end_a_run(tmp_path: Path) -> None:
    bad = [{**row, "image": b"x"} if row["id"] == "r2" else row for row in rows()]
    figures = multitune.train(recipe(bad), run=tmp_path / "run").figures
    assert (figures["test/rows"], figures["test/rows_lost"], figures["rows_quarantined"]) == (5, 1, 1)
