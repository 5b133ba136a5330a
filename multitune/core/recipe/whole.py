"""The whole recipe, and how it is read: YAML 1.2 core, checked, with overrides, before anything is expanded."""

from __future__ import annotations

import hashlib
import math
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, field_validator

from multitune.core.catalog import explain
from multitune.core.errors import RecipeError
from multitune.core.notation.overrides import give_way, override
from multitune.core.notation.yaml import parse_yaml
from multitune.core.protocols import Rows
from multitune.core.recipe.average import AverageSpec
from multitune.core.recipe.component import Component, Strict
from multitune.core.recipe.data import DataSpec
from multitune.core.recipe.evaluate import EvaluateSpec
from multitune.core.recipe.features import FeaturesSpec
from multitune.core.recipe.strategy import Strategy
from multitune.core.recipe.train import TrainSpec
from multitune.core.store import canonical

MAX_BYTES = 1 << 20
TABLES = (".csv", ".tsv", ".jsonl", ".parquet")
PASSWORD = re.compile(r"[A-Za-z][\w+.-]*://[^/\s?#@]+@")
# What binds speed, or how much may be lost before a run stops: it may be changed when a run goes on.
CHANGEABLE = {
    "train": ("workers", "prefetch", "inputs_memory", "checkpoint_every", "keep", "statistics_every", "trackers", "allocator"),
    "data": ("max_loss",),
    "features": ("folder",),
}


class Recipe(Strict):
    """What was asked, checked. `request` is what its hash covers."""

    name: str
    task: Component
    seed: int = Field(default=0, ge=0)
    data: DataSpec
    model: Component = Component()
    strategy: Strategy = Component(name="full")
    loss: Component = Component()
    train: TrainSpec = TrainSpec()
    average: AverageSpec = AverageSpec()
    evaluate: EvaluateSpec = EvaluateSpec()
    features: FeaturesSpec = FeaturesSpec()

    @field_validator("name")
    @classmethod
    def _is_a_folder_name(cls, value: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", value):
            raise ValueError("a name has letters, digits, dots, hyphens and underscores only, and at most 64 of them")
        return value

    def request(self) -> dict[str, Any]:
        """The recipe as plain data, only what was stated; what its hash covers."""
        return self.model_dump(mode="json", exclude_unset=True, fallback=_plain)

    def request_hash(self) -> str:
        """The sha256 (hex) of the request, without what may be changed when a run goes on."""
        asked = self.request()
        for section, names in CHANGEABLE.items():
            if section in asked:
                asked[section] = {name: value for name, value in asked[section].items() if name not in names}
        return hashlib.sha256(canonical({name: value for name, value in asked.items() if value != {}}).encode()).hexdigest()


def read_recipe(path: Path | str, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe in a YAML file, with `key=value` overrides.

    Raises: RecipeError naming the file or path, what was found, and what would do.
    """
    path = Path(path)
    if path.is_dir() or path.suffix.lower() in TABLES:
        remedy = f"Name a recipe; multitune init {shlex.quote(str(path))} writes one."
        raise RecipeError(str(path), f"is a {'folder' if path.is_dir() else 'table'}, not a recipe.", remedy)
    if not path.is_file():
        raise RecipeError(str(path), "there is no such file.", "Name a recipe, such as recipes/digits.yaml.")
    if path.stat().st_size > MAX_BYTES:
        raise RecipeError(str(path), f"is {path.stat().st_size:,} bytes.", f"A recipe has at most {MAX_BYTES:,}.")
    try:
        text = path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise RecipeError(str(path), f"is not UTF-8 text (byte {error.start}).", "Save it as UTF-8.") from None
    return make_recipe(parse_yaml(text, where=str(path)), overrides, where=str(path))


def make_recipe(values: Any, overrides: Sequence[str] = (), *, where: str = "recipe") -> Recipe:
    """The recipe that a mapping states, with `key=value` overrides.

    Raises: RecipeError naming the path, what was found, and the nearest name.
    """
    if not isinstance(values, Mapping):
        raise RecipeError(where, f"found {type(values).__name__}, not a mapping.", "Write `name:`, `task:`, `data:` ...")
    merged = _copied(values)
    for text in overrides:
        override(merged, text)
    give_way(merged, overrides)
    _refuse(merged)
    try:
        return Recipe.model_validate(merged)
    except ValidationError as error:
        first = error.errors()[0]
        location = tuple(step for step in first["loc"] if not _is_union_arm(step))
        place = ".".join(str(step) for step in location) or where
        if location == ("data",) and isinstance(merged["data"], str):
            remedy = f"A recipe names its table so: data.source.path={merged['data']} (evaluate and predict take data=PATH)."
            raise RecipeError(place, f"found {merged['data']!r}, not a mapping.", remedy) from None
        raise RecipeError(place, *explain(dict(first) | {"loc": location}, Recipe)) from None


def _copied(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _copied(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_copied(v) for v in value]
    return value


def _refuse(value: Any, place: str = "") -> None:
    """Refuse, wherever they stand, infinity and NaN (no option means them, no request can be hashed with them) and passwords in URLs.

    A request is kept in the run's folder, in trackers and in the artifact, which may be pushed.
    """
    if isinstance(value, float) and not math.isfinite(value):
        raise RecipeError(place, f"found {value}.", "Give a finite number.")
    if isinstance(value, str) and PASSWORD.search(value):
        remedy = "Leave it out, and set it where the library looks for it, such as MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD."
        raise RecipeError(place, "found a URL with a name or a password in it, and a recipe is kept and passed on.", remedy)
    if isinstance(value, dict | list):
        for name, inner in value.items() if isinstance(value, dict) else enumerate(value):
            _refuse(inner, f"{place}.{name}" if place else str(name))


def _is_union_arm(step: str | int) -> bool:
    return isinstance(step, str) and (step in {"Component", "int", "str"} or step.startswith(("tuple[", "function-")))


def _plain(value: Any) -> Any:
    """Rows in memory stand in the request as their fingerprint, their number and their columns."""
    if isinstance(value, Rows):
        return {"memory": value.fingerprint, "rows": len(value), "columns": list(value.columns)}
    raise RecipeError("recipe", f"found an object of type {type(value).__name__}.", "A recipe holds plain data.")


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> Iterable[str]:
    """Lines `path: old -> new` for every value that differs between two requests."""
    for name in sorted({*old, *new}):
        before, after = old.get(name), new.get(name)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            yield from differences(before, after, f"{prefix}{name}.")
        elif before != after:
            was, now = ("not stated" if value is None else repr(value) for value in (before, after))
            yield f"{prefix}{name}: {was} -> {now}"
