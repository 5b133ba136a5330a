"""A student learns from a teacher: what the teacher says of a row reaches that row, is kept, and is refused where it cannot fit."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import multitune
from multitune.core.errors import MultituneError, RecipeError, RunError
from multitune.core.ledger import Ledger
from multitune.core.protocols import Category
from multitune.core.recipe import make_recipe
from multitune.data.plan import outline
from multitune.deliver import sealing
from multitune.deliver.artifact import open_artifact
from multitune.verbs.train.teaching import Teacher
from tests.line.lines import TRAIN, bits, recipe
from tests.line.test_goes_on import ended

pytestmark = pytest.mark.line
PARTS = {"image": "image", "audio": "audio", "pairing": "category"}


def classifies(loss: Any = "cross_entropy", *, data: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    made = recipe("classifies", loss=loss, strategy="full", **changes)
    made["model"] = {"name": "fusion_encoder", "fuse": "concat", "towers": {"image": "tiny/image", "audio": "tiny/audio"}}
    made["data"] |= data or {}
    made["train"] = {**TRAIN, "steps": 4} | changes.get("train", {})
    return made


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("teacher") / "run"
    multitune.train(classifies(), run=folder)
    return folder


def test_a_teacher_that_is_not_there_is_told_to_be_missing() -> None:
    with pytest.raises(RecipeError, match=r"loss\.teacher: there is no folder runs/nowhere.*Name an artifact or a finished run"):
        multitune.plan(classifies(taught(Path("runs/nowhere"))))


def taught(teacher: Path, **options: Any) -> dict[str, Any]:
    return {"name": "distillation", "teacher": str(teacher), **options}


@pytest.fixture(scope="module")
def student(teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("student") / "run"
    multitune.train(classifies(taught(teacher, features="cosine")), run=folder)
    return folder


def test_the_table_holds_what_the_teacher_predicts_of_each_row_by_its_id(teacher: Path, student: Path) -> None:
    table = load_file(student / "teacher" / "table.safetensors")
    ids = json.loads((student / "teacher" / "teacher.json").read_text("utf-8"))["ids"]
    artifact = open_artifact(teacher)
    examples = outline(make_recipe(classifies()), Ledger()).examples["train"]
    assert ids == examples.ids
    samples = [examples.sample(place) for place in range(len(examples))]
    given = artifact.predictor().predict([replace(one, parts={n: p for n, p in one.parts.items() if n != "pairing"}) for one in samples])
    labels = artifact.needs.answers["pairing"].labels
    said = [answer for one in given if isinstance(answer := one.answers["pairing"], Category)]
    expected = torch.tensor([[math.log(answer.scores[label]) for label in labels] for answer in said])
    assert torch.equal(table["answer/pairing"], expected)
    assert table["feature/image"].shape == (len(ids), 128)


def test_the_share_nought_is_the_plain_loss_to_the_bit(teacher: Path, tmp_path: Path) -> None:
    multitune.train(classifies(taught(teacher, alpha=0)), run=tmp_path / "run")
    assert bits(tmp_path / "run") == bits(teacher)
    assert not (tmp_path / "run" / "teacher").exists()


def test_a_killed_run_goes_on_with_what_the_teacher_said_before(
    teacher: Path, student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = classifies(taught(teacher, features="cosine"))
    ended(monkeypatch, tmp_path / "run", made)
    before = (tmp_path / "run" / "teacher" / "table.safetensors").stat().st_mtime_ns
    multitune.train(made, run=tmp_path / "run")
    assert (tmp_path / "run" / "teacher" / "table.safetensors").stat().st_mtime_ns == before
    assert bits(tmp_path / "run") == bits(student)


def test_a_table_that_was_changed_meanwhile_is_refused_and_one_that_is_gone_is_made_again(
    teacher: Path, student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = classifies(taught(teacher, features="cosine"))
    ended(monkeypatch, tmp_path / "run", made)
    path = tmp_path / "run" / "teacher" / "table.safetensors"
    table = load_file(path)
    save_file({name: tensor.roll(1, 0) for name, tensor in table.items()}, path)
    with pytest.raises(RunError, match="is not what was written"):
        multitune.train(made, run=tmp_path / "run")
    path.unlink()
    multitune.train(made, run=tmp_path / "run")
    assert bits(tmp_path / "run") == bits(student)


def test_another_run_of_the_same_teacher_and_rows_asks_it_nothing(
    teacher: Path, student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = {"features": {"store": "auto", "folder": str(tmp_path / "store")}}
    first = multitune.train(classifies(taught(teacher, features="cosine"), **kept), run=tmp_path / "first")
    rows = len(json.loads((tmp_path / "first" / "teacher" / "teacher.json").read_text("utf-8"))["ids"])
    assert (first.figures["teacher/hits"], first.figures["teacher/asked"]) == (0, rows)
    monkeypatch.setattr(Teacher, "says", None)
    monkeypatch.setattr(Teacher, "family", None)
    again = multitune.train(classifies(taught(teacher, features="cosine", temperature=3), **kept), run=tmp_path / "again")
    assert (again.figures["teacher/hits"], again.figures["teacher/asked"]) == (rows, 0)
    tables = [load_file(run / "teacher" / "table.safetensors") for run in (student, tmp_path / "first", tmp_path / "again")]
    assert all(torch.equal(tables[0][name], table[name]) for table in tables[1:] for name in tables[0])


def test_a_damaged_word_of_the_teacher_is_asked_for_again_and_another_teacher_says_its_own(teacher: Path, tmp_path: Path) -> None:
    kept = {"features": {"store": "auto", "folder": str(tmp_path / "store")}}
    first = multitune.train(classifies(taught(teacher), **kept), run=tmp_path / "first")
    (shard,) = (path for path in (tmp_path / "store").glob("*/*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    multitune.train(classifies(seed=5), run=tmp_path / "teacher")
    other = multitune.train(classifies(taught(tmp_path / "teacher"), **kept), run=tmp_path / "other")
    again = multitune.train(classifies(taught(teacher), **kept) | {"seed": 3}, run=tmp_path / "again")
    assert first.figures["teacher/asked"] == other.figures["teacher/asked"] == again.figures["teacher/asked"] > 0
    assert "shard-damaged" in {finding.code for finding in again.findings}


def test_the_plan_names_the_teacher_and_its_proof_asks_it(teacher: Path) -> None:
    result = multitune.plan(classifies(taught(teacher)), prove=True)
    assert result.ok, result.text
    assert "of classifies; it is asked once, without augmentation" in result.text


def test_a_bare_tower_teaches_the_vector_of_one_part(tmp_path: Path) -> None:
    towers = {"image": {"name": "vit", "depth": 1, "width": 32, "patch_size": 16}, "audio": "tiny/audio"}
    made = classifies(taught(Path("tiny/image"), alpha=0, features="mse", parts=["image"]))
    made["model"]["towers"] = towers
    result = multitune.train(made, run=tmp_path / "run")
    assert result.ok
    names = {json.loads(line).get("name") for line in (tmp_path / "run" / "events.jsonl").read_text("utf-8").splitlines()}
    assert "train/loss/image_features" in names


def relabelled(teacher: Path, folder: Path, labels: list[str]) -> Path:
    """The teacher's artifact as if it knew other labels, sealed again."""
    shutil.copytree(teacher / "artifact", folder)
    body = json.loads((folder / "artifact.json").read_text("utf-8"))
    body["needs"]["answers"]["pairing"]["labels"] = labels
    body = {name: value for name, value in body.items() if name not in ("files", "seal")}
    (folder / "artifact.json").unlink()
    sealing.seal(folder, "artifact.json", body)
    return folder


REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "answer": ({}, {"parts": {"image": "image", "audio": "audio", "agree": "category"}, "answers": ["agree"]}, r'does not answer "agree"'),
    "part": ({}, {"parts": {"image": "image", "pairing": "category"}}, r'reads the part "audio"'),
    "bare": ({"teacher": "tiny/image"}, {}, r"loss\.teacher: .*the vector of one part"),
    "nothing": ({"teacher": "no/such/folder"}, {}, r"loss\.teacher: "),
    "share": ({"alpha": 2}, {}, r"alpha"),
    "plain": ({"plain": "contrastive"}, {}, r"loss\.plain: .*pairs"),
    "which": ({"features": "mse", "parts": ["imgae"]}, {}, r"loss\.parts: .*image"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_teacher_that_does_not_fit_is_refused_by_the_plan(teacher: Path, name: str) -> None:
    options, data, message = REFUSED[name]
    made = classifies({**taught(teacher), **options}, data=data)
    if "audio" not in made["data"]["parts"]:
        made["model"]["towers"] = {"image": "tiny/image"}
    with pytest.raises(MultituneError, match=message):
        multitune.plan(made)


def test_other_labels_are_refused_and_another_order_is_told(teacher: Path, tmp_path: Path) -> None:
    labels = list(open_artifact(teacher).needs.answers["pairing"].labels)
    other = relabelled(teacher, tmp_path / "other", [*labels[:-1], "neither"])
    with pytest.raises(RecipeError, match=rf"knows neither besides and does not know {labels[-1]}"):
        multitune.plan(classifies(taught(other)))
    turned = relabelled(teacher, tmp_path / "turned", labels[::-1])
    assert "teacher-order" in {finding.code for finding in multitune.plan(classifies(taught(turned))).findings}


def test_a_teacher_that_is_no_longer_what_it_was_is_refused_before_a_step_is_taken(teacher: Path, tmp_path: Path) -> None:
    folder = relabelled(teacher, tmp_path / "turned", list(open_artifact(teacher).needs.answers["pairing"].labels))
    rows = json.loads((folder / "golden" / "rows.json").read_text("utf-8"))
    scores = rows[0]["answers"]["pairing"]["scores"]
    rows[0]["answers"]["pairing"]["scores"] = {label: 1 - value for label, value in scores.items()}
    (folder / "golden" / "rows.json").write_text(json.dumps(rows), "utf-8")
    body = json.loads((folder / "artifact.json").read_text("utf-8"))
    body = {name: value for name, value in body.items() if name not in ("files", "seal")}
    (folder / "artifact.json").unlink()
    sealing.seal(folder, "artifact.json", body)
    with pytest.raises(RecipeError, match=r"does not give the predictions that it was saved with"):
        multitune.train(classifies(taught(folder)), run=tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoints").exists()
