"""Draw what a model is made of: towers, blocks, shapes, limits, heads; with a recipe, how they match the data.

MODEL is an embedded base, a tower plug-in, a folder or a hub id; no weights are loaded. With a recipe its data are read, and a few of
its rows are held against what each tower takes: `multitune inspect tiny/image --recipe recipes/digits.yaml`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import Field

from multitune.core import catalog
from multitune.core.ledger import Ledger
from multitune.core.recipe import read_recipe
from multitune.core.result import Result


class Options(catalog.Options):
    """Which model, beside which data."""

    model: str = Field(
        description="an embedded base (tiny/image), a tower plug-in, a folder or a hub id",
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

    portrait = draw(load_outline(model))
    figures = {"parameters": float(portrait.num_parameters), "bytes": float(portrait.num_bytes)}
    for tower in portrait.towers:
        figures |= {f"{tower.name}/parameters": float(tower.num_parameters), f"{tower.name}/blocks": float(len(tower.blocks))}
    shown, findings = drawing.text(portrait), ()
    if recipe is not None:
        from multitune.data.plan import outline

        told, findings = match(portrait, outline(read_recipe(recipe, overrides), Ledger()))
        shown += told
    return Result(ok=True, figures=figures, findings=findings, text=shown.rstrip())
