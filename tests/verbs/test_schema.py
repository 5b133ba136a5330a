"""The schema for editors is current, takes every recipe that there is, and refuses what a recipe cannot be."""

from __future__ import annotations

import copy
import json
from functools import cache
from typing import Any

import jsonschema
import pytest

import multitune
from multitune.core import catalog
from multitune.core.notation.yaml import parse_yaml
from multitune.core.recipe import Recipe, make_recipe
from tests.rules.source import ROOT

RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))
COMMITTED = ROOT / "docs" / "recipe.schema.json"


@cache
def validator() -> jsonschema.Draft202012Validator:
    whole = json.loads(multitune.schema().text)
    jsonschema.Draft202012Validator.check_schema(whole)
    return jsonschema.Draft202012Validator(whole)


def values(name: str = "chimes-lora") -> Any:
    return parse_yaml((ROOT / "recipes" / f"{name}.yaml").read_text("utf-8"), where=name)


def test_the_committed_copy_is_current() -> None:
    assert COMMITTED.read_text("utf-8") == multitune.schema().text + "\n", "multitune schema --out docs/recipe.schema.json writes it anew"


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_is_valid(path: Any) -> None:
    validator().validate(values(path.stem))


def test_a_recipe_as_a_run_keeps_it_is_valid() -> None:
    validator().validate(make_recipe(values()).request())


def test_every_field_of_the_recipe_is_known_and_every_plug_in_with_its_options() -> None:
    whole = json.loads(multitune.schema().text)
    assert set(whole["properties"]) == set(Recipe.model_fields)
    for kind in ("source", "family", "strategy", "loss", "metric", "augmentation"):
        of_kind = {choice["properties"]["name"]["const"]: choice for choice in whole["$defs"][kind]["anyOf"] if "properties" in choice}
        assert set(of_kind) == set(catalog.names(kind))
    lora = next(choice for choice in whole["$defs"]["strategy"]["anyOf"] if choice.get("properties", {}).get("name") == {"const": "lora"})
    assert set(lora["properties"]) == {"name", "options", *catalog.load("strategy", "lora").Options.model_fields}


@pytest.mark.parametrize(
    "change",
    [
        {"trian": {}},
        {"train": {"learning_rate": 1}},
        {"train": {"lr": "fast"}},
        {"train": {"batch_size": 0}},
        {"strategy": "lorra"},
        {"strategy": {"name": "lora", "rnak": 8}},
        {"loss": {"name": "cross_entropy", "label_smoothing": 2}},
        {"task": "clasification"},
        {"data": {"parts": {"image": "picture"}}},
        {"data": {"source": {"name": "tabel", "path": "x"}, "parts": {"image": "image"}}},
    ],
)
def test_what_a_recipe_cannot_be_is_refused(change: dict[str, Any]) -> None:
    changed = copy.deepcopy(values()) | change
    assert list(validator().iter_errors(changed))


@pytest.mark.parametrize(
    "change",
    [
        {"train": {"steps": 5, "epochs": None}},
        {"strategy": [{"pattern": "head", "rate": 5}, {"pattern": "image.*", "start": "50%"}]},
        {
            "model": {
                "name": "fusion_encoder",
                "towers": {"image": {"name": "vit", "depth": 2}, "audio": {"pretrained": "a/b", "revision": "v1"}},
            }
        },
        {"loss": "auto"},
    ],
)
def test_every_form_that_a_recipe_takes_is_valid(change: dict[str, Any]) -> None:
    validator().validate(copy.deepcopy(values()) | change)
