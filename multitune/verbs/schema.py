"""Write the JSON Schema of recipes, for editors.

`multitune schema --out recipe.schema.json`, then `# yaml-language-server: $schema=recipe.schema.json` as a recipe's first line: fields,
plug-ins and their options are completed and checked. Plug-ins of installed packages and of `--plugin FILE` are in it. What only the data
or the model can tell is left to `multitune plan`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from multitune.core import catalog
from multitune.core.recipe import Recipe
from multitune.core.recipe.train import TAKES_THE_PLACE
from multitune.core.result import Result
from multitune.core.rundir import write_atomic

DIALECT = "https://json-schema.org/draft/2020-12/schema"
# Which kind of component a field holds, where it is not named after it, in the recipe and among the options of plug-ins.
KIND_OF = {"model": "family", "sources": "source", "augment": "augmentation", "metrics": "metric", "trackers": "tracker", "fuse": "fusion"}
WITHIN = ("fusion", "connector")  # kinds that only the options of plug-ins point at
AUTO = ("family", "loss")  # kinds that a task chooses where nothing is stated
REF = "#/$defs/"
WORD = {"type": "string"}


class Options(catalog.Options):
    """Where the schema goes."""

    out: Path | None = Field(default=None, description="write it into this file instead of on the screen")
    run: Path | None = Field(default=None, description="also keep it in this folder")
    fresh: bool = Field(default=False, description="no effect here; taken so that the same flags fit every verb")


def build(options: Options) -> Result:
    """The schema as text, or in a file."""
    made = schema()
    if options.out is not None:
        path = write_atomic(options.out, (made.text + "\n").encode("utf-8"))
        made = Result(ok=True, figures=made.figures, paths={"schema": path}, text=f"wrote {path}")
    return made if options.run is None else made.kept(options.run / "recipe.schema.json")


def schema() -> Result:
    """The JSON Schema of a recipe; figures: `plugins`, and the `bytes` of the text."""
    whole = _recipe()
    text = json.dumps(whole, indent=1, ensure_ascii=False)
    count = sum(len(catalog.names(kind)) for kind in _kinds(whole))
    return Result(ok=True, figures={"plugins": float(count), "bytes": float(len(text.encode()))}, text=text)


def _recipe() -> dict[str, Any]:
    made = _tidied(Recipe.model_json_schema())
    definitions: dict[str, Any] = made.pop("$defs")
    models = {"Recipe": made, **definitions}
    for model in models.values():
        for field, spec in model.get("properties", {}).items():
            model["properties"][field] = _pointed(spec, _kind_of(field))
    _mend(definitions)
    definitions["Component"] = {"anyOf": [WORD, {"type": "object", "properties": {"name": WORD}}]}
    for kind in _kinds({**made, "$defs": definitions}):
        definitions |= _plugins(kind)
    head = {"$schema": DIALECT, "title": "a recipe of multitune", "description": (Recipe.__doc__ or "").strip().split("\n")[0]}
    return head | {name: value for name, value in made.items() if name not in head} | {"$defs": dict(sorted(definitions.items()))}


def _mend(definitions: dict[str, Any]) -> None:
    """What our models take besides their fields: short forms, and null for what excludes something."""
    modalities = {"type": "string", "enum": catalog.names("modality")}
    definitions["PartSpec"]["properties"]["modality"] = modalities
    definitions["PartSpec"] = {"anyOf": [modalities, definitions["PartSpec"]]}
    if "Phase" in definitions:
        phase = definitions["Phase"]
        names = {"type": "string", "enum": catalog.names("strategy")}
        phase["properties"]["name"] = names
        phase["additionalProperties"] = True  # the strategy's own options
        definitions["Phase"] = {"anyOf": [names, phase]}
    for name in TAKES_THE_PLACE:
        field = definitions["TrainSpec"]["properties"][name]
        definitions["TrainSpec"]["properties"][name] = {"anyOf": [field, {"type": "null"}]} | _about(field)


def _pointed(spec: Any, kind: str) -> Any:
    """A field's schema with its components pointing at the plug-ins of their kind."""
    if isinstance(spec, Mapping):
        if spec.get("$ref") == f"{REF}Component" and kind:
            return {**spec, "$ref": f"{REF}{kind}"}
        return {name: _pointed(inner, kind) for name, inner in spec.items()}
    return [_pointed(inner, kind) for inner in spec] if isinstance(spec, list) else spec


def _kinds(whole: Any) -> list[str]:
    """The kinds of plug-ins that a schema points at, those within plug-ins too."""
    text = json.dumps(whole)
    return [kind for kind in catalog.KINDS if f'"{REF}{kind}"' in text or kind in WITHIN]


def _kind_of(field: str) -> str:
    kind = KIND_OF.get(field, field)
    return kind if kind in catalog.KINDS else ""


def _plugins(kind: str) -> dict[str, Any]:
    """The definition of a kind (a name, or a name with options) and of what its options refer to."""
    names = [*(["auto"] if kind in AUTO else []), *catalog.names(kind)]
    found: dict[str, Any] = {}
    choices: list[dict[str, Any]] = [{"type": "string", "enum": names}]
    for name in catalog.names(kind):
        options = _tidied(catalog.load(kind, name).Options.model_json_schema())
        found |= {inner: _short_tower(inner, spec) for inner, spec in options.pop("$defs", {}).items() if inner != "Component"}
        fields = {field: _pointed(spec, _kind_of(field)) for field, spec in options.get("properties", {}).items()}
        properties = {"name": {"const": name}, **fields, "options": {"type": "object"}}
        about = {"type": "object", "description": catalog.summary(kind, name)}
        choices.append(about | {"required": ["name"], "properties": properties, "additionalProperties": False})
    return {**found, kind: {"anyOf": choices}}


def _short_tower(name: str, spec: dict[str, Any]) -> dict[str, Any]:
    """A model among the options that may be written as a word: a tower as its base, or as a plug-in with its options."""
    if "pretrained" not in spec.get("properties", {}):
        return spec
    fields = {"name": {"type": "string", "enum": catalog.names("tower")}, "revision": WORD, **spec["properties"]}
    rest = {key: value for key, value in spec.items() if key not in {"required", "properties", "additionalProperties"}}
    return {"anyOf": [WORD, rest | {"properties": fields, "additionalProperties": True}]}


def _tidied(spec: Any) -> Any:
    """Without titles (they repeat the names) and without defaults that are whole sections."""
    if isinstance(spec, list):
        return [_tidied(inner) for inner in spec]
    if not isinstance(spec, Mapping):
        return spec
    return dict(_kept(spec))


def _kept(spec: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in spec.items():
        if (name == "title" and isinstance(value, str)) or (name == "default" and isinstance(value, Mapping) and value):
            continue
        if name == "properties":
            yield name, {field: _tidied(inner) for field, inner in value.items()}
        elif name == "description" and isinstance(value, str):
            yield name, " ".join(value.split())
        else:
            yield name, value if name in {"default", "enum", "const"} else _tidied(value)


def _about(field: Mapping[str, Any]) -> dict[str, Any]:
    return {name: field[name] for name in ("description", "default") if name in field}
