"""Write a recipe out with every default and its origin.

`multitune render recipe.yaml train.lr=1e-3 > whole.yaml`. Origins are [recipe], [command line], [task] (the task's choice), [default].
Read back, it asks for the same. What would contradict a stated value (`steps` beside `epochs`) stands as a comment.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field

from multitune.core import catalog
from multitune.core.errors import PluginError, RecipeError
from multitune.core.notation.flow import flow
from multitune.core.protocols import Rows, TaskPreset
from multitune.core.recipe import Component, Recipe, make_recipe
from multitune.core.result import Result
from multitune.core.rundir import write_atomic
from multitune.verbs.plan import as_recipe

KIND_OF = {"model": "family"}  # where a component's field is not named after its kind
KIND_IN = {"fuse": "fusion", "connector": "connector"}  # components among a family's options
NOT_STATED = "not stated"
WIDTH = 150  # characters of a line with its comment


class Options(catalog.Options):
    """Which recipe."""

    recipe: Path = Field(description="a YAML file", json_schema_extra={"positional": True, "metavar": "RECIPE"})
    overrides: tuple[str, ...] = Field(default=(), description="key=value, such as train.lr=3e-5", json_schema_extra=catalog.POSITIONAL)
    out: Path | None = Field(default=None, description="write it into this file instead of on the screen")
    run: Path | None = Field(default=None, description="also keep it in this folder")
    fresh: bool = Field(default=False, description="no effect here; taken so that the same flags fit every verb")


def build(options: Options) -> Result:
    """The recipe in full."""
    made = render(options.recipe, overrides=options.overrides)
    if options.out is not None:
        path = write_atomic(options.out, made.text.encode("utf-8"))
        made = Result(ok=True, figures=made.figures, paths={"recipe": path}, text=f"wrote {path}")
    return made if options.run is None else made.kept(options.run / "recipe-in-full.yaml")


def render(recipe: Recipe | Mapping[str, Any] | Path | str, *, overrides: Sequence[str] = ()) -> Result:
    """A recipe with every default and its origin, as YAML; figures: how many values are `stated` and how many `defaults`.

    Raises: RecipeError, PluginError for what does not hold, and for rows in memory, which no file can hold.
    """
    asked = as_recipe(recipe, overrides)
    source = asked.data.source
    if any(isinstance(value, Rows) for value in (source.options.values() if source is not None else ())):
        raise RecipeError("data.source", "rows in memory cannot be written into a file.", "Name a table: {name: table, path: ...}.")
    writing = _Writing(asked, tuple(text.partition("=")[0] for text in overrides))
    lines = list(writing.section(asked, "", 0))
    heading = f"# {asked.name} with every default. Runs of this file have another folder: their names come from what is stated."
    counts = {kind: float(sum(f"# [{kind}" in line for line in lines)) for kind in ("recipe", "command line", "task", "default")}
    figures = {"stated": counts["recipe"] + counts["command line"], "chosen": counts["task"], "defaults": counts["default"]}
    return Result(ok=True, figures=figures, text="\n".join([heading, *lines]))


@dataclass
class _Writing:
    """How far the recipe has been written out. whole: what was stated and the defaults that go with it."""

    recipe: Recipe
    overridden: tuple[str, ...]
    whole: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.whole = copy.deepcopy(self.recipe.request())
        self.preset: TaskPreset = catalog.find("task", self.recipe.task.name, self.recipe.task.options, where="task").build()

    def section(self, model: BaseModel, prefix: str, depth: int) -> Iterator[str]:
        """The lines of a section of the recipe."""
        for name, about in type(model).model_fields.items():
            path, value = f"{prefix}{name}", getattr(model, name)
            if isinstance(value, Component) and KIND_OF.get(path, name) in catalog.KINDS:
                yield from self._component(path, name, value, depth, about.description or "")
            elif isinstance(value, BaseModel):
                yield f"{'  ' * depth}{name}:"
                yield from self.section(value, f"{path}.", depth + 1)
            elif isinstance(value, Mapping) and value and all(isinstance(inner, BaseModel) for inner in value.values()):
                yield f"{'  ' * depth}{name}:"
                for key, inner in value.items():
                    yield f"{'  ' * (depth + 1)}{flow(key)}:"
                    yield from self.section(inner, f"{path}.{key}.", depth + 2)
            else:
                yield self._leaf(path, name, _plain(value), depth, about.description or "")

    def _leaf(self, path: str, name: str, plain: Any, depth: int, about: str) -> str:
        """One value; a default that contradicts what is stated becomes a comment."""
        text = f"{name}: {flow(plain)}"
        if self._stated(path):
            return _line(depth, text, self._origin(path), about)
        refusal = self._refusal(path, plain)
        return _line(depth, f"# {text}", "default", f"{NOT_STATED}: {refusal}") if refusal else _line(depth, text, "default", about)

    def _component(self, path: str, name: str, component: Component, depth: int, told: str) -> Iterator[str]:
        """A plug-in with all its options."""
        chosen, origin = component.name, self._origin(path) if self._stated(path) else "default"
        if chosen == "auto" and path in {"model", "loss"}:
            chosen, origin = (self.preset.family if path == "model" else self._loss()), "task"
        kind = KIND_OF.get(path, name)
        plugin = catalog.find(kind, chosen, component.options, where=path)
        options = list(_options(plugin, path))
        if not options:
            yield _line(depth, f"{name}: {flow(chosen)}", origin, told or catalog.summary(kind, chosen))
            return
        yield f"{'  ' * depth}{name}:"
        yield _line(depth + 1, f"name: {flow(chosen)}", origin, catalog.summary(kind, chosen))
        for option in options:
            yield from option.lines(depth + 1, self._origin(f"{path}.{option.name}") if option.stated else "default")

    def _loss(self) -> str:
        from multitune.tuning.plan import loss_name

        data = self.recipe.data
        return loss_name(self.recipe, self.preset, [data.parts[answer].modality for answer in data.answers])

    def _stated(self, path: str) -> bool:
        here: Any = self.recipe.request()
        for step in path.split("."):
            if not isinstance(here, Mapping) or step not in here:
                return False
            here = here[step]
        return True

    def _origin(self, path: str) -> str:
        told = any(path == one or path.startswith(f"{one}.") or one.startswith(f"{path}.") for one in self.overridden)
        return "command line" if told else "recipe"

    def _refusal(self, path: str, plain: Any) -> str:
        """Why this default cannot be stated beside the rest; empty where it can, and it then is."""
        tried = copy.deepcopy(self.whole)
        here = tried
        *steps, last = path.split(".")
        for step in steps:
            if isinstance(here.get(step), str):  # a part in its short form
                here[step] = {"modality": here[step]}
            here = here.setdefault(step, {})
        here[last] = plain
        try:
            make_recipe(tried)
        except RecipeError as error:
            return error.found.rstrip(".")
        self.whole = tried
        return ""


@dataclass(frozen=True)
class _Option:
    """An option of a plug-in. plain: its value as a recipe has it. whole: with the defaults inside it. refused: why it is but a comment."""

    name: str
    plain: Any
    whole: Any
    stated: bool
    about: str
    refused: str = ""

    def lines(self, depth: int, origin: str) -> Iterator[str]:
        """Its lines: a mapping of mappings one below the other; defaults inside a value as comments."""
        if self.refused:
            yield _line(depth, f"# {flow(self.name)}: {flow(self.plain)}", origin, self.refused)
            return
        if not isinstance(self.whole, Mapping) or self.whole == self.plain:
            yield _line(depth, f"{flow(self.name)}: {flow(self.plain)}", origin, self.about)
        elif isinstance(self.plain, Mapping) and all(isinstance(inner, Mapping) for inner in self.whole.values()):
            yield _line(depth, f"{flow(self.name)}:", origin, self.about)
            for key, inner in self.plain.items():
                yield f"{'  ' * (depth + 1)}{flow(key)}: {flow(inner)}"
                yield f"{'  ' * (depth + 1)}# whole: {flow(self.whole[key])}"
        else:
            yield _line(depth, f"{flow(self.name)}: {flow(self.plain)}", origin, self.about)
            yield f"{'  ' * depth}# whole: {flow(self.whole)}"


def _options(plugin: catalog.Plugin, where: str) -> Iterator[_Option]:
    """Each option; a default that says nothing, or contradicts what is stated, is refused as a line of its own."""
    given = plugin.options
    whole, said = given.model_dump(mode="json"), given.model_dump(mode="json", exclude_unset=True)
    kept = dict(said)
    for name, about in type(given).model_fields.items():
        stated, refused = name in said, ""
        plain = _short(said[name] if stated else whole[name])
        if not stated and whole[name] in (None, "", [], {}):
            refused = about.description or "none"
        elif not stated:
            try:
                catalog.parse(type(given), {**kept, name: whole[name]}, where=where)
                kept[name] = whole[name]
            except PluginError as error:
                refused = f"{NOT_STATED}: {error.found.rstrip('.')}"
        full = _expanded(whole[name], KIND_IN[name], f"{where}.{name}") if name in KIND_IN else whole[name]
        yield _Option(name, plain, full if isinstance(plain, Mapping | str) else plain, stated, about.description or "", refused)


def _short(value: Any) -> Any:
    """A component without options, or a tower of which nothing but its base was stated, as just its name."""
    if not isinstance(value, Mapping):
        return value
    if "name" in value and not set(value) - {"name", "options"}:
        return {"name": value["name"], **value["options"]} if value.get("options") else value["name"]
    return value["pretrained"] if set(value) == {"pretrained"} else {name: _short(inner) for name, inner in value.items()}


def _expanded(value: Mapping[str, Any], kind: str, where: str) -> Any:
    """A component among options with all its own options; just its name where it has none."""
    inner = catalog.find(kind, value["name"], value["options"], where=where).options.model_dump(mode="json")
    return {"name": value["name"], **inner} if inner else value["name"]


def _plain(value: Any) -> Any:
    """A value as a recipe has it: components in their short form."""
    if isinstance(value, Component):
        return {"name": value.name, **value.options} if value.options else value.name
    if isinstance(value, BaseModel):
        return {name: _plain(getattr(value, name)) for name in type(value).model_fields if name in value.model_fields_set}
    if isinstance(value, Mapping):
        return {name: _plain(inner) for name, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, tuple | list) else value


def _line(depth: int, text: str, origin: str, about: str) -> str:
    """A line with its origin and, where there is room, what it means."""
    start = f"{'  ' * depth}{text}  # [{origin}]"
    told = " ".join(about.split())
    if told.startswith(NOT_STATED) and len(start) + len(told) >= WIDTH:
        told = f"{told[: WIDTH - len(start) - 5]}..."
    return f"{start} {told}" if told and len(start) + len(told) < WIDTH else start
