"""The page of all recipe fields names each of them once, with the default that it has, in both languages."""

from __future__ import annotations

import re
import types
from collections.abc import Iterator
from typing import Any, get_args, get_origin

import pytest
from pydantic import BaseModel

from multitune.core.recipe import Component, Recipe
from tests.rules.source import ROOT

PAGES = ("docs/recipe.md", "docs/zh/recipe.md")
COUNTED = {tuple: "N.", dict: "NAME."}


@pytest.mark.parametrize("page", PAGES)
def test_the_page_names_every_field_once_with_its_default(page: str) -> None:
    rows = re.findall(r"^\| `([\w.]+)` \| (.+?) \| .+ \|$", (ROOT / page).read_text("utf-8"), flags=re.MULTILINE)
    fields = dict(fields_of(Recipe))
    assert sorted(name for name, _ in rows) == sorted(fields)
    for name, default in rows:
        assert re.fullmatch(fields[name], default), (name, default)


def test_both_pages_have_the_same_fields_in_the_same_order() -> None:
    english, chinese = (re.findall(r"^\| `([\w.]+)`", (ROOT / page).read_text("utf-8"), flags=re.MULTILINE) for page in PAGES)
    assert english == chinese


def fields_of(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Dotted names of all fields with the pattern of their default's text: code where there is one, else words."""
    for name, field in model.model_fields.items():
        yield f"{prefix}{name}", "required|必填" if field.is_required() else _shown(field.get_default(call_default_factory=True))
        for inner, between in _models(field.annotation):
            yield from fields_of(inner, f"{prefix}{name}.{between}")


def _shown(value: Any) -> str:
    if isinstance(value, Component):
        return re.escape(f"`{value.name}`")
    if value in (None, "", (), {}) or isinstance(value, BaseModel):
        return r"[^`]+"
    text = str(list(value)) if isinstance(value, tuple) else str(value).lower() if isinstance(value, bool) else str(value)
    return re.escape(f"`{text}`")


def _models(annotation: Any) -> Iterator[tuple[type[BaseModel], str]]:
    if isinstance(annotation, type) and get_origin(annotation) is None and issubclass(annotation, BaseModel):
        if annotation is not Component:
            yield annotation, ""
        return
    between = COUNTED.get(get_origin(annotation) or types.NoneType, "")
    for argument in get_args(annotation):
        yield from ((inner, between + rest) for inner, rest in _models(argument))
