"""The straight line on each of the three shapes: a recipe becomes a model that is measured and used."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

import multitune
from multitune.core.errors import RecipeError, RunError
from multitune.core.result import Result
from multitune.models.predictor import plain
from tests.line.lines import SHAPES, bits, recipe

pytestmark = pytest.mark.line
PRIMARY = {"classifies": "test/accuracy", "embeds": "test/image_to_image_caption/r_at_1", "speaks": "test/bleu"}


@pytest.fixture(scope="module", params=SHAPES)
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, Result]:
    shape: str = request.param
    folder = tmp_path_factory.mktemp("runs") / shape
    return shape, folder, multitune.train(recipe(shape), run=folder)


def test_a_run_ends_with_figures_findings_and_an_artifact(trained: tuple[str, Path, Result]) -> None:
    shape, folder, result = trained
    assert result.ok
    assert PRIMARY[shape] in result.figures
    assert result.figures["steps"] == 6
    for name in ("plan.json", "plan.txt", "events.jsonl", "findings.json", "result.json", "artifact/artifact.json", "artifact/README.md"):
        assert (folder / name).is_file(), name


def test_the_same_command_answers_from_a_finished_run(trained: tuple[str, Path, Result]) -> None:
    shape, folder, result = trained
    again = multitune.train(recipe(shape), run=folder)
    assert dict(again.figures) == dict(result.figures)
    assert "finished before" in again.text


def test_a_folder_of_another_request_is_refused_with_the_difference(trained: tuple[str, Path, Result]) -> None:
    shape, folder, _ = trained
    with pytest.raises(RunError, match=r"seed: not stated -> 5"):
        multitune.train(recipe(shape, seed=5), run=folder)


def test_evaluating_the_artifact_gives_the_figures_of_the_run_and_its_page(trained: tuple[str, Path, Result]) -> None:
    _, folder, result = trained
    page = folder.parent / "again.html"
    again = multitune.evaluate(folder, report=page)
    assert {name: value for name, value in result.figures.items() if name.startswith("test/")} == dict(again.figures)
    assert again.paths["report"] == page
    assert sections(page) == sections(folder / "report.html")


def test_a_run_ends_with_a_page_of_its_curves_figures_rows_and_plan(trained: tuple[str, Path, Result]) -> None:
    shape, folder, result = trained
    assert result.paths["report"] == folder / "report.html"
    wanted = {"findings", "figures", "curves", "worst", "ledger", "plan"}
    assert sections(folder / "report.html") >= (wanted | {"confusion"} if shape == "classifies" else wanted)
    text = (folder / "report.html").read_text("utf-8")
    assert [told for told in ("Gradient norm", "Update to weight", "data:image/", "<polyline") if told not in text] == []


def test_a_page_that_is_to_lie_where_a_folder_is_is_refused(trained: tuple[str, Path, Result]) -> None:
    _, folder, _ = trained
    with pytest.raises(RecipeError, match=r"--report: .* is no file"):
        multitune.evaluate(folder, report=folder)


def sections(page: Path) -> set[str]:
    """The sections of a page, by their ids."""
    return set(re.findall(r'<section id="(\w+)">', page.read_text("utf-8")))


def test_what_predict_says_of_a_row_is_what_was_evaluated(trained: tuple[str, Path, Result]) -> None:
    shape, folder, _ = trained
    from multitune.core.ledger import Ledger
    from multitune.core.recipe import make_recipe
    from multitune.data.plan import outline

    artifact = multitune.load(folder / "artifact")
    examples = outline(make_recipe(artifact.request), Ledger()).examples["test"]
    together = artifact.predictor().predict([examples.sample(index) for index in range(len(examples))])
    column = {"classifies": ("image", "audio"), "embeds": ("image", "image_caption"), "speaks": ("image",)}[shape]
    for index in (0, 7, len(examples) - 1):
        row: dict[str, Any] = dict(examples.rows_of(index))
        given = {name: row[name] if name == "image_caption" else examples.root_of(index) / row[name] for name in column}
        alone = artifact.predict(given | {"id": examples.ids[index]})
        assert plain(alone) == plain(together[index])


def test_the_figures_can_be_counted_again_from_the_predictions(trained: tuple[str, Path, Result]) -> None:
    shape, folder, result = trained
    if shape != "classifies":
        return
    from multitune.core.ledger import Ledger
    from multitune.core.recipe import make_recipe
    from multitune.data.plan import outline

    artifact = multitune.load(folder / "artifact")
    examples = outline(make_recipe(artifact.request), Ledger()).examples["test"]
    said = multitune.predict(artifact, None)
    hits = [one.answers["pairing"].value == truth for one, truth in zip(said, examples.column("pairing"), strict=True)]
    assert result.figures["test/accuracy"] == sum(hits) / len(hits)


def test_the_plan_says_what_moved(trained: tuple[str, Path, Result]) -> None:
    _, folder, result = trained
    planned = json.loads((folder / "plan.json").read_text("utf-8"))["values"]["moves.parameters"]["value"]
    assert planned == result.figures["parameters_moved"]
    assert not [finding for finding in result.findings if finding.code in {"did-not-move", "moved-unplanned"}]


def test_the_same_recipe_gives_the_same_bits_again(trained: tuple[str, Path, Result], tmp_path: Path) -> None:
    shape, folder, _ = trained
    multitune.train(recipe(shape), run=tmp_path / "again")
    assert bits(tmp_path / "again") == bits(folder)
