"""Overrides: `key=value` put into plain data, the value read as YAML."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from multitune.core.errors import RecipeError
from multitune.core.notation.yaml import parse_yaml

MAX_DIGITS = 9
# What is stated on the command line takes the place of what excludes it in the file.
SHARES = ("data.split.train", "data.split.valid", "data.split.test")
GIVES_WAY = {
    "train.steps": ("train.epochs",),
    "train.epochs": ("train.steps",),
    "train.batch_size": ("train.batch_tokens",),
    "train.batch_tokens": ("train.batch_size",),
    "data.split.column": (*SHARES, "data.split.sources"),
    **dict.fromkeys(SHARES, ("data.split.column",)),
    "data.source": ("data.mix",),
    "data.mix": ("data.source",),
}


def override(values: dict[str, Any], text: str) -> None:
    """Put what `text` says (`train.lr=3e-5`) into `values`, in place.

    Raises: RecipeError if it is not key=value, or its path leads nowhere.
    """
    path, equals, written = text.partition("=")
    if not equals or not path:
        raise RecipeError("override", f'found "{text}".', "Write key=value, such as train.lr=3e-5.")
    here: Any = values
    steps = path.split(".")
    for position, step in enumerate(steps[:-1]):
        place = ".".join(steps[: position + 1])
        inner = _child(here, step, place)
        if isinstance(inner, str):  # a component in its short form gets options
            name = "modality" if position and steps[position - 1] == "parts" else "name"
            inner = {name: inner}
        elif inner is None:
            inner = {}
        _set(here, step, inner, place)
        here = inner
    _set(here, steps[-1], parse_yaml(written, where=f"override {path}") if written else "", path)


def give_way(values: dict[str, Any], overrides: Sequence[str]) -> None:
    """Leave out of `values`, in place, what an override excludes and no override states."""
    stated = [path for path, _, written in (text.partition("=") for text in overrides) if written not in ("", "null", "0")]
    for path in stated:
        for other in GIVES_WAY.get(path, ()):
            *sections, name = other.split(".")
            here: Any = values
            for section in sections:
                here = here.get(section) if isinstance(here, dict) else None
            if other not in stated and isinstance(here, dict):
                here.pop(name, None)


def _child(here: Any, step: str, place: str) -> Any:
    if isinstance(here, list):
        return here[_entry(here, step, place)]
    if not isinstance(here, dict):
        raise RecipeError(f"override {place}", f"found {here!r:.40}, which has nothing inside.", "Shorten the path.")
    return here.get(step)


def _set(here: Any, step: str, value: Any, place: str) -> None:
    if isinstance(here, list):
        here[_entry(here, step, place)] = value
    elif isinstance(here, dict):
        here[step] = value
    else:
        raise RecipeError(f"override {place}", f"found {here!r:.40}, which has nothing inside.", "Shorten the path.")


def _entry(here: list[Any], step: str, place: str) -> int:
    if not step.isdecimal() or len(step) > MAX_DIGITS or int(step) >= len(here):
        found = f'the list has {len(here)} entries, and "{step}" is none of them.'
        raise RecipeError(f"override {place}", found, "Give a number below that, or the whole list.")
    return int(step)
