"""Draw what a model is made of: towers, blocks, shapes, limits, heads; with a recipe, how they match the data.

MODEL is an embedded base, a tower plug-in, a folder, a hub id, an artifact or a run; no weights are loaded. With a recipe its data are
read, and a few of its rows are held against what each tower takes: `multitune inspect tiny/image --recipe recipes/digits.yaml`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import Field

from multitune.core import catalog
from multitune.core.finding import Finding
from multitune.core.ledger import Ledger
from multitune.core.recipe import read_recipe
from multitune.core.result import Result


class Options(catalog.Options):
    """Which model, beside which data."""

    model: str = Field(
        description="an embedded base (tiny/image), a tower plug-in, a folder, a hub id, an artifact or a run",
        json_schema_extra={"positional": True, "metavar": "MODEL"},
    )
    overrides: tuple[str, ...] = Field(
        default=(), description="with --recipe: key=value, such as data.source.path=x", json_schema_extra=catalog.POSITIONAL
    )
    recipe: Path | None = Field(default=None, description="a YAML file: how the model matches its data")
    run: Path | None = Field(default=None, description="also write what is shown into this folder")
    fresh: bool = Field(default=False, description="no effect here; taken so that the same flags fit every verb")


def build(options: Options) -> Result:
    """The portrait of a model."""
    made = inspect(options.model, recipe=options.recipe, overrides=options.overrides)
    return made if options.run is None else made.kept(options.run / "model.txt")


def inspect(model: str, *, recipe: Path | str | None = None, overrides: Sequence[str] = ()) -> Result:
    """What a model is made of; figures: `parameters`, `bytes`, and for each tower its `parameters` and `blocks`.

    Raises: ModelError for a model that cannot be built; RecipeError, DataError for a recipe or data that do not hold.
    """
    from multitune.models.inspection import drawing
    from multitune.models.inspection.matching import match
    from multitune.models.inspection.portrait import draw
    from multitune.models.load import load_outline

    data = None
    if recipe is not None:
        from multitune.data.plan import outline

        data = outline(read_recipe(recipe, overrides), Ledger())
    figures: dict[str, float] = {}
    shown: list[str] = []
    findings: list[Finding] = []
    inner = _of_artifact(Path(model))
    for name, folder in inner.items() or {"": model}.items():
        portrait, prefix = draw(load_outline(str(folder))), f"{name}/" if name else ""
        figures |= {f"{prefix}parameters": float(portrait.num_parameters), f"{prefix}bytes": float(portrait.num_bytes)}
        for tower in portrait.towers:
            here = f"{prefix}{tower.name}"
            figures |= {f"{here}/parameters": float(tower.num_parameters), f"{here}/blocks": float(len(tower.blocks))}
        shown.append(drawing.text(portrait))
        if data is not None:
            told, found = match(portrait, data)
            shown[-1] += told
            findings += found
    return Result(ok=True, figures=figures, findings=tuple(findings), text="\n".join(shown).rstrip())


def _of_artifact(folder: Path) -> dict[str, Path]:
    """The models in an artifact, or in that of a run, by name; empty for a folder that is neither."""
    inside = folder / "artifact" if (folder / "request.json").is_file() else folder
    if not (inside / "artifact.json").is_file():
        return {}
    return {path.parent.name: path.parent for path in sorted((*inside.glob("towers/*/config.json"), *inside.glob("model/config.json")))}
