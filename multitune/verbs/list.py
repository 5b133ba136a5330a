"""List the plug-ins and their options.

Without a kind: every kind with its plug-ins. With a kind (source, tower, loss ...): each plug-in of it with its summary and
its options, their types, defaults and meanings. What a third party brought stands with its package and version, or its file; one that
does not hold is told, and the rest is listed. `models`: which kinds of pretrained models hold to every line of the walk over them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field

from multitune.core import catalog
from multitune.core.errors import PluginError, did_you_mean, one_of
from multitune.core.finding import Finding, Severity
from multitune.core.notation.flow import flow
from multitune.core.recipe import Component
from multitune.core.result import Result
from multitune.models.inspection import conformance

MODELS = "models"
BROKEN, HIDDEN = "plug-in-broken", "plug-in-hidden"


class Options(catalog.Options):
    """What to list."""

    kind: str = Field(default="", description="source, modality, tower, family, loss ..., or models", json_schema_extra=catalog.POSITIONAL)
    run: Path | None = Field(default=None, description="also write what is shown into this folder")
    fresh: bool = Field(default=False, description="no effect here; taken so that the same flags fit every verb")


def build(options: Options) -> Result:
    """The list as text; figures count the plug-ins of each kind."""
    made = _models() if options.kind == MODELS else _plugins(options)
    return made if options.run is None else made.kept(options.run / "list.txt")


def _plugins(options: Options) -> Result:
    kinds = [options.kind] if options.kind else [kind for kind in catalog.KINDS if catalog.names(kind)]
    unknown = [kind for kind in kinds if kind not in catalog.KINDS]
    if unknown:
        known = one_of([*catalog.KINDS, MODELS])
        raise PluginError("list", f'"{unknown[0]}" is no kind; there are {known}.', did_you_mean(unknown[0], list(catalog.KINDS)))
    findings = tuple(finding for kind in kinds for finding in _third_parties(kind))
    broken = {finding.where for finding in findings if finding.code == BROKEN}
    lines = [line for kind in kinds for line in _kind_lines(kind, broken, detailed=bool(options.kind))]
    figures = {kind: float(len(catalog.names(kind))) for kind in kinds}
    return Result(ok=True, figures=figures, findings=findings, text="\n".join([*lines, *(finding.line() for finding in findings)]))


def _third_parties(kind: str) -> Iterator[Finding]:
    """Plug-ins of third parties that do not hold, or are not reached."""
    for name in catalog.names(kind):
        try:
            if catalog.brought_by(kind, name):
                catalog.load(kind, name)
        except PluginError as error:
            yield Finding(BROKEN, Severity.WARNING, f"{kind} {name}", error.found, error.remedy)
    for name, brought in catalog.hidden(kind).items():
        yield Finding(HIDDEN, Severity.WARNING, f"{kind} {name}", f"{brought} brings one too; ours is used.", "It must take another name.")


def _models() -> Result:
    kinds, why_none = conformance.read(conformance.root())
    green = sum(kind.green for kind in kinds)
    lines = [f"{'green' if kind.green else 'red':<6}{kind.title:<26}{', '.join(kind.reads)}" for kind in kinds]
    text = "\n".join([*lines, f"{green} of {len(kinds)} kinds of models hold to every line" if kinds else why_none])
    return Result(ok=True, figures={"kinds_green": float(green), "kinds_walked": float(len(kinds))}, text=text)


def _kind_lines(kind: str, broken: set[str], *, detailed: bool) -> Iterator[str]:
    yield kind
    wide = max((len(name) for name in catalog.names(kind)), default=0)
    for name in catalog.names(kind):
        holds, brought = f"{kind} {name}" not in broken, catalog.brought_by(kind, name)
        told = catalog.summary(kind, name) if holds else "does not hold, see below"
        yield f"  {name:<{wide}}  {told}" + (f" [{brought}]" if brought else "")
        if detailed and holds:
            yield from _option_lines(kind, name)


def _option_lines(kind: str, name: str) -> Iterator[str]:
    for field_name, field in catalog.load(kind, name).Options.model_fields.items():
        default = "required" if field.is_required() else _shown(field.get_default(call_default_factory=True))
        yield f"      {field_name} = {default}" + (f"  {field.description}" if field.description else "")


def _shown(value: object) -> str:
    """A default as a recipe would state it."""
    return flow(_plain(value))


def _plain(value: Any) -> Any:
    if isinstance(value, Component) and not value.options:
        return value.name
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", exclude_defaults=True)
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]  # pyright: ignore[reportUnknownVariableType]
    return value if isinstance(value, str | int | float | dict | None) else str(value)
