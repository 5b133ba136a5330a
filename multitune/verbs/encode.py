"""Encode ahead what a recipe's frozen towers give: every row of its splits, into the feature store; of several phases, the first.

Runs of this recipe, and of others with the same data, the same weights under the same cut and the same compute threads, then begin to
train at once. What is there already is not encoded again; ended in the middle, the same command goes on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from multitune.core import catalog
from multitune.core.ledger import Ledger
from multitune.core.recipe import Recipe
from multitune.core.result import Result
from multitune.verbs.plan import as_recipe, make_plan


class Options(catalog.Options):
    """Which recipe."""

    recipe: Path = Field(description="a YAML file", json_schema_extra={"positional": True, "metavar": "RECIPE"})
    overrides: tuple[str, ...] = Field(
        default=(), description="key=value, such as features.type=bf16", json_schema_extra=catalog.POSITIONAL
    )
    run: Path | None = Field(default=None, description="also write what is shown into this folder")
    fresh: bool = Field(default=False, description="no effect here; taken so that the same flags fit every verb")


def build(options: Options) -> Result:
    """Encode for a recipe file."""
    made = encode(options.recipe, overrides=options.overrides)
    return made if options.run is None else made.kept(options.run / "encode.txt")


def encode(recipe: Recipe | Mapping[str, Any] | Path | str, *, overrides: Sequence[str] = ()) -> Result:
    """Encode every row of a recipe's splits that the store lacks; figures: `features/hits`, `features/encoded`, `features/bytes`.

    Not ok where nothing of the model can be kept; the findings say why.
    Raises: UserError for what the recipe or the data get wrong; WriteFault if the machine does not take the shards.
    """
    from multitune.models.features.filling import Features
    from multitune.tuning.engines.accelerate import processes
    from multitune.tuning.plan import device_of
    from multitune.verbs.train.deciding import possible
    from multitune.verbs.train.line import Line
    from multitune.verbs.train.storing import as_in_training, every_row, folder_of, wanted

    asked = as_recipe(recipe, [*overrides, "features.store=auto"])
    ranks, planned = processes(device_of(asked)), make_plan(asked, Ledger())
    line = Line.start(planned, ledger=Ledger(), ranks=ranks)
    as_in_training(line, ranks)
    found = possible(line)
    seams, findings = found.stages[0].seams, [*found.findings]
    if not seams:
        none = "there is nothing to keep: nothing is frozen below a cut that holds. A strategy such as partial freezes some."
        text = "\n".join([none, *(one.line() for one in findings)])
        return Result(ok=False, findings=tuple(findings), text=text)
    features, aside = Features.open(line.family, seams, root=folder_of(line), asked=wanted(line), seed=planned.plan["run.seed"])
    features.fill(every_row(line))
    features.check()
    findings += aside
    counts = features.counts
    towers = ", ".join(f"{tower} below {seam.cut.name}" for tower, seam in seams.items())
    text = f"{towers}: {counts.encoded:,} rows encoded, {counts.hits:,} were there; {counts.bytes:,} bytes written to {features.root}"
    text += f"; rounding {counts.rounding:.1e} standard deviations" if counts.rounding else ""
    lines = [text, *(finding.line() for finding in findings)]
    return Result(ok=True, figures=counts.figures(), findings=tuple(findings), paths={"store": features.root}, text="\n".join(lines))
