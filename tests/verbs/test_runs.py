"""`runs` lists what there is, sorts it, and lays plans and figures side by side; `--tag` names runs and changes nothing else."""

from __future__ import annotations

import json
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
