"""The recipes that come with the project: they parse, they are named after their files, and their start folders are derived."""

from __future__ import annotations

from pathlib import Path

import pytest

from multitune.core import catalog
from multitune.core.recipe import read_recipe
from recipes.tiny_start import sines, write_start

RECIPES = Path(__file__).resolve().parents[2] / "recipes"
FILES = sorted(RECIPES.glob("*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_recipe_parses_and_is_named_after_its_file(path: Path) -> None:
    assert read_recipe(path).name == path.stem


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_recipe_names_a_task_and_sources_with_options_that_they_take(path: Path) -> None:
    recipe = read_recipe(path)
    catalog.find("task", recipe.task.name, recipe.task.options)
    for entry in recipe.data.entries:
        catalog.find("source", entry.source.name, entry.source.options)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_recipe_opens_with_what_it_is_for(path: Path) -> None:
    assert path.read_text("utf-8").startswith("# ")


def test_the_recipes_of_the_base_draw_other_rows_than_those_that_use_it() -> None:
    pretrain, use = (
        {
            (entry.source.name, entry.source.options.get("seed", 0))
            for path in FILES
            if path.stem.startswith("pretrain") == first
            for entry in read_recipe(path).data.entries
        }
        for first in (True, False)
    )
    assert not pretrain & use


def test_start_folders_are_the_same_bytes_for_the_same_seed(tmp_path: Path) -> None:
    for name in ("one", "other"):
        write_start(tmp_path / name)
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file())
    assert len(files) == 15
    assert [file for file in files if (tmp_path / "one" / file).read_bytes() != (tmp_path / "other" / file).read_bytes()] == []


def test_another_seed_gives_other_first_weights(tmp_path: Path) -> None:
    for name, seed in (("one", 0), ("other", 1)):
        write_start(tmp_path / name, seed=seed)
    first, second = ((tmp_path / name / "image" / "model.safetensors").read_bytes() for name in ("one", "other"))
    assert first != second


def test_no_two_places_have_the_same_position() -> None:
    positions = sines(high=4, wide=6, width=128)
    assert len(positions.unique(dim=0)) == 24
