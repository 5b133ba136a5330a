"""`render` writes every default with its origin, and what it writes asks for the same plan."""

from __future__ import annotations

from pathlib import Path

import pytest

import multitune
from multitune.core.errors import RecipeError
from multitune.core.ledger import Ledger
from multitune.core.notation.yaml import parse_yaml
from multitune.core.recipe import Recipe, make_recipe, read_recipe
from multitune.verbs.plan import make_plan
from tests.rules.source import ROOT

RECIPES = ("chimes-lora", "chimes-scratch", "chimes-caption", "digits")


def again(text: str) -> Recipe:
    return make_recipe(parse_yaml(text, where="rendered"))


@pytest.mark.line
@pytest.mark.parametrize("name", RECIPES)
def test_the_plan_of_what_was_written_is_that_of_the_original_apart_from_origins(name: str) -> None:
    path = ROOT / "recipes" / f"{name}.yaml"
    small = ["data.source.rows=40"] if name.startswith("chimes") else []
    first = make_plan(read_recipe(path, small), Ledger()).plan
    second = make_plan(again(multitune.render(path, overrides=small).text), Ledger()).plan
    assert second.hash() == first.hash()
    assert second.tables == first.tables
    bound = {name: value.value for name, value in first.values.items() if value.binds != "nothing"}
    assert {name: second[name] for name in bound} == bound


def test_every_field_of_the_recipe_is_there() -> None:
    written = again(multitune.render(ROOT / "recipes" / "digits.yaml").text)
    for section in (written, written.data, written.evaluate):
        assert set(type(section).model_fields) - section.model_fields_set <= {"mix"}
    assert set(type(written.train).model_fields) == written.train.model_fields_set


def test_each_value_says_where_it_comes_from() -> None:
    lines = multitune.render(ROOT / "recipes" / "chimes-lora.yaml", overrides=["train.lr=0.5"]).text.splitlines()
    told = {line.split(":")[0].strip(): line for line in lines}
    assert "[command line]" in told["lr"]
    assert "[recipe]" in told["batch_size"]
    assert "[default]" in told["weight_decay"]
    assert "name: cross_entropy  # [task]" in "\n".join(lines)


def test_what_would_contradict_a_stated_value_stands_as_a_comment() -> None:
    text = multitune.render(ROOT / "recipes" / "digits.yaml", overrides=["train.steps=5"]).text
    assert "# epochs: 3.0  # [default] not stated" in text, text
    assert again(text).train.steps == 5


def test_rows_in_memory_cannot_be_written(tmp_path: Path) -> None:
    asked = {
        "name": "x", "task": "classification",
        "data": {"source": {"name": "rows", "rows": [{"a": "b", "c": "d"}]}, "parts": {"a": "text", "c": "category"}, "answers": ["c"]},
    }  # fmt: skip
    with pytest.raises(RecipeError, match="rows in memory"):
        multitune.render(asked)
