"""`runs` lists what there is, sorts it, and lays plans and figures side by side; `--tag` names runs and changes nothing else."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import multitune
from multitune.core.errors import RunError
from multitune.data.decode import modality
from multitune.verbs.plan import as_recipe

pytestmark = pytest.mark.line
STEPS = 2


def recipe(**changes: object) -> dict[str, object]:
    made = modality("image")
    splits = ("train", "train", "valid", "test")
    rows = [{"id": str(n), "image": made.synthesize(n), "label": "ab"[n % 2], "split": splits[n // 2 % 4]} for n in range(16)]
    return {
        "name": "small",
        "task": "classification",
        "data": {
            "source": {"name": "rows", "rows": rows},
            "parts": {"image": "image", "label": "category"},
            "answers": ["label"],
            "split": {"column": "split"},
        },
        "model": {"name": "fusion_encoder", "towers": {"image": "tiny/image"}},
        "strategy": {"name": "partial", "blocks": 0},
        "train": {"steps": STEPS, "batch_size": 4, "threads": 1, "workers": 0},
        "evaluate": {"intervals": 20, "baselines": False, "ablations": False},
    } | changes


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two finished runs, one that was planned only, and one that was moved aside."""
    root = tmp_path_factory.mktemp("home") / "runs"
    multitune.train(recipe(), run=root / "head", tags=("baseline", "first"))
    multitune.train(recipe(strategy={"name": "partial", "blocks": 1}), run=root / "deeper", tags=["second"])
    multitune.plan(recipe(seed=1), folder=root / "planned")
    multitune.plan(recipe(), folder=root / "gone.old-1")
    return root


def test_the_table_shows_tags_states_figures_with_intervals_and_dates(folder: Path) -> None:
    result = multitune.runs(folder)
    lines = {line.split()[0]: line for line in result.text.splitlines() if line}
    assert (result.figures["runs"], result.figures["finished"]) == (3, 2)
    assert "baseline, first" in lines["head"]
    assert "test/accuracy" in lines["head"]
    assert " to " in lines["head"]
    assert "planned only" in lines["planned"]
    assert "gone.old-1" not in result.text


def test_runs_are_sorted_by_a_figure_and_those_without_it_come_last(folder: Path) -> None:
    result = multitune.runs(folder, sort="train/steps_per_second")
    shown = [line.split()[0] for line in result.text.splitlines()[1:4]]
    speeds = [result.figures[f"{name}/train/steps_per_second"] for name in shown[:2]]
    assert speeds == sorted(speeds, reverse=True)
    assert shown[2] == "planned"


def test_a_run_that_never_began_says_so_and_has_the_strategy_that_it_was_asked_for(tmp_path: Path) -> None:
    asked = {"name": "x", "task": "classification", "strategy": [{"name": "partial", "stop": "50%"}, "full"]}
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "request.json").write_text(json.dumps({"hash": "0" * 64, "request": asked}), "utf-8")
    line = multitune.runs(tmp_path).text.splitlines()[1]
    assert ("phases" in line, "not begun" in line) == (True, True)


def test_runs_that_have_figures_are_those_that_it_says_to_compare(folder: Path, tmp_path: Path) -> None:
    for name in ("head", "deeper", "planned"):
        shutil.copytree(folder / name, tmp_path / name)
    for file in (tmp_path / "planned").iterdir():
        os.utime(file, (0, 0))
    lines = multitune.runs(tmp_path).text.splitlines()
    assert lines[1].startswith("planned")
    assert "planned" not in lines[-1]


def test_a_split_of_few_rows_is_told_once(folder: Path) -> None:
    findings = json.loads((folder / "head" / "findings.json").read_text("utf-8"))
    assert [one["code"] for one in findings if one["where"] in ("test", "data.split.test")] == ["few-rows"]


def test_a_tag_picks_runs_and_is_no_part_of_the_request(folder: Path) -> None:
    assert list(multitune.runs(folder, tags=["first"]).paths) == ["head"]
    assert json.loads((folder / "head" / "request.json").read_text("utf-8"))["hash"] == as_recipe(recipe()).request_hash()
    again = multitune.train(recipe(), run=folder / "head", tags=["first", "later"])
    assert "finished before" in again.text
    assert json.loads((folder / "head" / "tags.json").read_text("utf-8")) == ["baseline", "first", "later"]


def test_two_runs_side_by_side_show_where_their_plans_differ_and_all_figures(folder: Path) -> None:
    text = multitune.runs(folder / "head", folder / "deeper").text
    plan, figures = text.split("\nplan\n")[1].split("\nfigures\n")
    assert plan.split()[0] == "strategy.rows.0"
    assert "train.lr" not in plan
    assert "test/accuracy" in figures


def test_alike_plans_are_said_to_be_alike(folder: Path) -> None:
    assert "plan: no value differs" in multitune.runs(folder / "head", folder / "head").text


def test_one_run_alone_shows_all_its_figures(folder: Path) -> None:
    assert "test/macro_f1" in multitune.runs(folder / "head").text


def test_a_run_that_was_stopped_says_at_which_step(folder: Path, tmp_path: Path) -> None:
    multitune.plan(recipe(seed=2), folder=tmp_path / "stopped")
    (tmp_path / "stopped" / "checkpoints" / "step-000001").mkdir(parents=True)
    assert f"stopped at step 1 of {STEPS}" in multitune.runs(tmp_path).text


@pytest.mark.parametrize(
    ("given", "options", "said"),
    [
        ("nowhere", {}, "no such folder"),
        (".", {"sort": "test/acuracy"}, 'Did you mean "test/accuracy"'),
        (".", {"tags": ["other"]}, "There are the tags baseline"),
        ("head/artifact", {}, "holds no runs"),
    ],
)
def test_what_is_not_there_is_named(folder: Path, given: str, options: dict[str, object], said: str) -> None:
    with pytest.raises(RunError, match=said):
        multitune.runs(folder / given, **options)  # type: ignore[arg-type]


def test_a_tag_that_is_none_is_refused_before_anything_is_done(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="A tag has"):
        multitune.train(recipe(), run=tmp_path / "run", tags=["two words"])
    assert not (tmp_path / "run").exists()


def claimed(folder: Path, **figures: float) -> Path:
    """A run folder with nothing but its request, and a result if there are figures."""
    folder.mkdir(parents=True)
    (folder / "request.json").write_text(json.dumps({"form": 1, "hash": "c0ffee" * 10, "request": {"task": {"name": "retrieval"}}}))
    if figures:
        (folder / "result.json").write_text(json.dumps({"figures": {name.replace("__", "/"): value for name, value in figures.items()}}))
    return folder


def test_a_damaged_run_is_told_and_the_others_are_shown(tmp_path: Path) -> None:
    claimed(tmp_path / "sound", test__accuracy=0.5)
    (claimed(tmp_path / "torn") / "result.json").write_text('{"figures": {')
    (claimed(tmp_path / "odd", test__accuracy=0.25) / "plan.json").write_text("[]")
    (tmp_path / "odd" / "tags.json").write_bytes(b"\xff")
    (tmp_path / "odd" / "events.jsonl").mkdir()
    result = multitune.runs(tmp_path)
    assert (result.ok, result.figures["runs"], result.figures["finished"]) == (True, 3, 2)
    assert sorted(Path(finding.where).relative_to(tmp_path).as_posix() for finding in result.findings) == [
        "odd/plan.json",
        "odd/tags.json",
        "torn/result.json",
    ]
    assert "damaged" in next(line for line in result.text.splitlines() if line.startswith("torn"))


def test_a_run_that_goes_on_shows_its_newest_evaluation_and_no_torn_line(tmp_path: Path) -> None:
    events = [{"step": step, "seconds": 4.0 * step, "name": "valid/accuracy", "value": step / 10} for step in (1, 2)]
    text = '{"form": 1}\n' + "".join(json.dumps(event) + "\n" for event in events) + '{"step": 3, "sec'
    (claimed(tmp_path / "running") / "events.jsonl").write_text(text)
    assert dict(multitune.runs(tmp_path).figures) == {
        "runs": 1,
        "finished": 0,
        "running/valid/accuracy": 0.2,
        "running/seconds": 8.0,
    }


@pytest.mark.parametrize("columns", [80, 120])
@pytest.mark.parametrize("diff", [False, True])
def test_nothing_is_wider_than_the_screen(folder: Path, columns: int, diff: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.chdir(folder.parent)
    text = multitune.runs(diff=diff).text
    assert max(map(len, text.splitlines())) <= columns
    assert "test/accuracy" in text


def test_many_runs_show_each_value_and_who_has_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    text = multitune.runs(folder, diff=True).text
    assert "  run.seed\n    0: head, deeper\n    1: planned\n" in text


def test_a_loss_is_sorted_from_the_smallest(tmp_path: Path) -> None:
    for name, loss in {"worse": 2.0, "better": 0.5}.items():
        claimed(tmp_path / name, test__loss=loss)
    assert list(multitune.runs(tmp_path, sort="test/loss").paths) == ["better", "worse"]


def test_runs_in_folders_are_named_by_their_paths_and_found_below_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    claimed(tmp_path / "runs" / "sweep" / "one", test__accuracy=0.5)
    monkeypatch.chdir(tmp_path)
    assert list(multitune.runs().paths) == ["sweep/one"]
    assert "test/accuracy" in multitune.runs("sweep/one").text


def test_no_torch_is_imported(folder: Path) -> None:
    script = "import sys, multitune; multitune.runs(sys.argv[1], sort='test/accuracy', diff=True); print('torch' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", script, str(folder)], capture_output=True, text=True, timeout=60, check=True)
    assert shown.stdout.strip() == "False"
