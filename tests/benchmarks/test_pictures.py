"""The picture benchmarks ask all sides the same, score them alike, and compare like with like. No trainer of others runs here."""

from __future__ import annotations

import ast
import inspect
import json
from pathlib import Path

import pytest
from PIL import Image

from benchmarks import all as every
from benchmarks import frozen, partial, phases
from benchmarks.pictures.drawing import CLASSES, Size, drawn
from benchmarks.pictures.ours import main, recipe
from benchmarks.pictures.sides import FEW, HAND, OURS, PEERS, QUICK, SCALE, agrees, by_hand, job, lightning, ours, scored, trainers
from multitune.core.recipe import make_recipe

TINY = Size(rows=40, held_out=16, side=48, blocks=2, width=24, heads=3, tower_side=32)
TRAINERS = ["hf-trainer-0", "hf-trainer-2", "lightning"]
SETTINGS = ("model", "batch", "lr", "weight_decay", "betas", "eps", "clip_norm", "seed", "threads", "epochs", "blocks")


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    monkeypatch.setenv("MULTITUNE_CACHE", str(tmp_path / "cache"))
    return job(TINY, lr=1e-2)


def said(rows: Path, wrong: int) -> dict[str, str]:
    held_out = [row for row in map(json.loads, rows.read_text("utf-8").splitlines()) if row["split"] == "valid"]
    return {row["id"]: "none" if place < wrong else row["label"] for place, row in enumerate(held_out)}


def test_the_pictures_are_drawn_once_with_every_class_and_a_part_held_out(asked: dict[str, object]) -> None:
    rows = [json.loads(line) for line in Path(str(asked["rows"])).read_text("utf-8").splitlines()]
    assert len({row["label"] for row in rows}) == CLASSES
    assert [row["split"] for row in rows].count("valid") == TINY.held_out
    with Image.open(Path(str(asked["rows"])).parent / rows[-1]["image"]) as picture:
        assert (picture.format, picture.size) == ("JPEG", (48, 48))
    assert drawn(TINY) == {name: asked[name] for name in ("model", "rows")}
    assert drawn(TINY, seed=1)["rows"] != asked["rows"]


def test_the_recipe_of_ours_says_every_number_of_the_job(asked: dict[str, object]) -> None:
    told = {**asked, **ours(asked, 20).job, "folder": "work", "threads": 2}
    made = make_recipe(recipe(told), [])
    train = made.train
    assert (train.epochs, train.batch_size, train.lr, train.weight_decay, train.eps) == (20, 32, 1e-2, 0.01, 1e-8)
    assert (list(train.betas), train.clip_norm, train.threads, train.schedule) == ([0.9, 0.999], 1.0, 2, "linear")
    assert (made.strategy.name, made.strategy.options) == ("partial", {"blocks": 0})
    assert train.evaluate_every == 1
    assert made.features.folder == str(Path("work") / "store")


def test_phases_open_a_block_at_the_epochs_at_which_the_trainer_does(asked: dict[str, object]) -> None:
    told = {**asked, **ours(asked, phases.EPOCHS).job, "starts": list(phases.STARTS), "folder": "work", "threads": 2}
    made = make_recipe(recipe(told), [])
    shares = ["25.0000%", "50.0000%", "75.0000%"]
    assert (made.strategy.name, made.strategy.options) == ("progressive", {"depth": 3, "starts": shares})
    assert made.train.schedule == "constant"


def test_a_peer_reads_every_number_of_the_job_and_nothing_of_ours() -> None:
    read = {path.stem: path.read_text("utf-8") for path in PEERS.glob("*.py")}
    for name in ("hf_trainer", "lightning_fit", "by_hand"):
        missing = [field for field in SETTINGS if f'job["{field}"]' not in read[name]]
        assert missing == [], name
    for text in read.values():
        nodes = list(ast.walk(ast.parse(text)))
        named = {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
        named |= {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
        assert not any(name.split(".")[0] in {"multitune", "benchmarks"} for name in named)


def test_all_sides_run_the_same_epochs_and_each_has_a_name_of_its_own(asked: dict[str, object]) -> None:
    sides = [ours(asked, 5), *trainers(5), by_hand(5), lightning(5)]
    assert [side.name for side in sides] == [OURS, *TRAINERS, HAND, "lightning"]
    assert {side.job["epochs"] for side in sides} == {5}
    assert [side.job["workers"] for side in trainers(5)] == [0, 2, 0]


def test_every_side_is_scored_by_one_function_and_few_epochs_stand_for_many(asked: dict[str, object]) -> None:
    rows = Path(str(asked["rows"]))
    few = {"seconds": 9.0, "epoch_seconds": [4.0, 2.0, 3.0], "said": said(rows, 4)}
    found = scored({OURS: [{"seconds": 5.0, "said": said(rows, 0)}], "hf-trainer-0": [few]}, asked, few_of=20)
    assert (found[OURS][0]["accuracy"], found[OURS][0]["seconds"]) == (1.0, 5.0)
    assert (found["hf-trainer-0"][0]["accuracy"], found["hf-trainer-0"][0]["seconds"]) == (0.75, 4.0 + 19 * 2.5)
    assert scored({"hf-trainer-0": [few]}, asked)["hf-trainer-0"][0]["seconds"] == 9.0


def test_a_side_that_leaves_a_row_out_has_no_score(asked: dict[str, object]) -> None:
    short = said(Path(str(asked["rows"])), 0)
    short.popitem()
    with pytest.raises(AssertionError):
        scored({OURS: [{"seconds": 5.0, "said": short}]}, asked)


def test_agreement_is_an_accuracy_no_lower_than_any_and_each_comparison_is_told() -> None:
    found = {OURS: [{"accuracy": 0.9}], "a": [{"accuracy": 0.9}], "b": [{"accuracy": 0.91}]}
    assert agrees(found, ["a"], at="3 epochs") == ([f"- 3 epochs: {OURS} 0.9000, a 0.9000: no lower"], True)
    lines, held = agrees(found, ["a", "b"], at="3 epochs")
    assert not held
    assert lines[1].endswith("b 0.9100: **lower**")


def test_all_asks_every_benchmark_but_itself_and_each_of_its_forms() -> None:
    whole, quick = list(every.asked(False)), list(every.asked(True))
    assert ("vision-lm", ()) in whole
    assert {"frozen", "partial", "phases", "quality", "digits"} <= {name for name, _ in whole}
    assert "all" not in {name for name, _ in whole}
    assert ("frozen", ("--again",)) in whole
    assert ("frozen", ("--again", "--quick")) in quick
    assert [forms for name, forms in quick if name == "digits"] == [()]


@pytest.mark.parametrize("benchmark", [frozen, partial, phases], ids=lambda one: one.__name__)
def test_a_picture_benchmark_has_a_quick_form_on_fewer_rows(benchmark: object) -> None:
    assert "quick" in inspect.signature(benchmark.measure).parameters  # type: ignore[attr-defined]
    assert (QUICK.rows, QUICK.held_out / QUICK.rows) == (256, SCALE.held_out / SCALE.rows)
    assert FEW == 3


@pytest.mark.slow
def test_a_second_run_finds_every_row_that_the_first_one_kept(
    asked: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = {}
    for name, more in (("first", {}), ("second", {"width": 8, "lr": 1e-3})):
        (tmp_path / name).mkdir()
        one = ours(asked, 2, store=str(tmp_path / "store"), **more)
        (tmp_path / f"{name}.json").write_text(json.dumps({**asked, **one.job, "folder": str(tmp_path / name), "threads": 1}))
        monkeypatch.setattr("sys.argv", ["ours", str(tmp_path / f"{name}.json"), str(tmp_path / f"{name}.answer")])
        main()
        told[name] = json.loads((tmp_path / f"{name}.answer").read_text("utf-8"))
    assert (told["first"]["hits"], told["first"]["encoded"]) == (0, TINY.rows)
    assert (told["second"]["hits"], told["second"]["encoded"]) == (TINY.rows, 0)
    assert 0 < told["first"]["seconds"] < told["first"]["verb_seconds"]
    assert len(scored({OURS: [told["first"]]}, asked)[OURS]) == 1
