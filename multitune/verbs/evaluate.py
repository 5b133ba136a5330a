"""Measure an artifact on its own test split, on another split, or on other data.

`multitune evaluate runs/digits-1a2b3c` measures the run's artifact again on its test split; `data=PATH` measures it on a table
(or rows in memory, from Python) whose columns are the recipe's parts.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from multitune.core import catalog
from multitune.core.errors import ArtifactError, RecipeError
from multitune.core.ledger import Ledger
from multitune.core.protocols import Split
from multitune.core.recipe import Recipe, make_recipe, parse_yaml
from multitune.core.result import Result
from multitune.core.rundir import write_atomic

if TYPE_CHECKING:
    from multitune.deliver.artifact import Artifact


class Options(catalog.Options):
    """Which artifact, on what."""

    artifact: Path = Field(description="an artifact's folder, or a run's", json_schema_extra={"positional": True, "metavar": "ARTIFACT"})
    overrides: tuple[str, ...] = Field(
        default=(), description="data=PATH for other data; evaluate.match=label and the like", json_schema_extra=catalog.POSITIONAL
    )
    split: Literal["train", "valid", "test"] = Field(default="test", description="which split of the recipe's own data")
    run: Path | None = Field(default=None, description="write the figures into this folder")
    fresh: bool = Field(default=False, description="no effect here; taken so that the same flags fit every verb")


def build(options: Options) -> Result:
    """The figures of an artifact."""
    data, rest = data_of(options.overrides)
    return evaluate(options.artifact, data=data, split=options.split, overrides=rest, run=options.run)


def evaluate(
    artifact: Path | str | Artifact, *, data: Any = None, split: Split = "test", overrides: Sequence[str] = (), run: Path | None = None
) -> Result:
    """The figures of an artifact.

    data: a table's path, a component such as {name: chimes, rows: 100}, or rows in memory; None: the recipe's own `split`.
    Raises: ArtifactError, DataError.
    """
    from multitune.deliver.artifact import Artifact as Opened
    from multitune.measure.evaluator import Evaluator
    from multitune.measure.report import table

    opened = artifact if isinstance(artifact, Opened) else open_run_or_artifact(artifact)
    recipe = make_recipe(opened.request, overrides)
    ledger = Ledger(run / "ledger" if run is not None else None)
    _, examples = examples_of(recipe, opened, data, split, ledger)
    preset = catalog.find("task", recipe.task.name, recipe.task.options, where="task").build()
    name = "data" if data is not None else split
    wanted = recipe.evaluate
    judge = Evaluator(wanted, preset, opened.needs, recipe.seed, ledger, recipe.data.max_loss)
    predictor = opened.predictor(generate=wanted.generate)
    report = judge.evaluate(predictor, examples, name=name, baselines=wanted.baselines, ablations=wanted.ablations)
    ledger.seal("end")
    paths: dict[str, Path] = {"artifact": opened.folder}
    result = Result(ok=True, figures=report.figures, findings=report.findings, paths=paths, text=table(report).rstrip())
    if run is not None:
        paths["figures"] = write_atomic(run / f"{name}.json", (result.json_line() + "\n").encode())
    return result


def open_run_or_artifact(path: Path | str) -> Artifact:
    """The artifact in a folder, or that of the run in it."""
    from multitune.deliver.artifact import open_artifact

    folder = Path(path)
    return open_artifact(folder / "artifact" if (folder / "request.json").is_file() else folder)


def data_of(overrides: Sequence[str]) -> tuple[Any, list[str]]:
    """`data=...` taken out of the overrides: a path, or a component in YAML's flow form; and the rest."""
    found = [text.partition("=")[2] for text in overrides if text.startswith("data=")]
    rest = [text for text in overrides if not text.startswith("data=")]
    if not found:
        return None, rest
    value = parse_yaml(found[-1], where="override data")
    if not isinstance(value, str | dict):
        raise RecipeError("data", f"found {value!r:.60}.", "Give a table's path, or {name: SOURCE, ...}.")
    return value, rest


def source_of(data: Any) -> dict[str, Any]:
    """The component that reads `data`: a table for a path, the source itself for a component, else rows in memory."""
    if isinstance(data, Path | str):
        return {"name": "folder" if Path(data).is_dir() else "table", "path": str(data)}
    if isinstance(data, dict) and isinstance(data.get("name"), str):
        return data
    from multitune.data.sources.rows import MemoryRows

    return {"name": "rows", "rows": data if isinstance(data, MemoryRows) else MemoryRows.of(data)}


def examples_of(recipe: Recipe, artifact: Artifact, data: Any, split: Split, ledger: Ledger) -> tuple[Any, Any]:
    """The outline of the recipe's own data (None for other data) and the examples to measure on."""
    from multitune.data import plan as data_plan

    if data is None:
        outline = data_plan.outline(recipe, ledger)
        if outline.needs != artifact.needs:
            raise ArtifactError(str(artifact.folder), "was trained on data with other parts or classes.", "Give data=PATH.")
        return outline, outline.examples[split]
    other = recipe.model_dump(exclude_unset=True)
    kept = {name: value for name, value in other["data"].items() if name in {"parts", "answers", "missing", "max_loss"}}
    made = make_recipe(other | {"data": kept | {"source": source_of(data)}})
    return None, data_plan.everything(made, ledger)
