"""Measure an artifact on its own test split, on another split, or on other data.

`multitune evaluate runs/digits-1a2b3c` measures the run's artifact again on its test split; `data=PATH` measures it on a table
(or rows in memory, from Python) whose columns are the recipe's parts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from multitune.core import catalog
from multitune.core.errors import ArtifactError, RecipeError
from multitune.core.finding import Finding, Severity
from multitune.core.ledger import Ledger
from multitune.core.notation.yaml import parse_yaml
from multitune.core.protocols import Split
from multitune.core.recipe import Recipe, make_recipe
from multitune.core.result import Result
from multitune.core.rundir import write_atomic

if TYPE_CHECKING:
    from multitune.data.split import Examples
    from multitune.deliver.artifact import Artifact
    from multitune.measure.extremes import Extremes
    from multitune.measure.report import Report

MEASURED = ("evaluate", "data")
MEASURED_ELSEWHERE = ("evaluate", "data.parts", "data.missing", "data.max_loss")


class Options(catalog.Options):
    """Which artifact, on what."""

    artifact: Path = Field(description="an artifact's folder, or a run's", json_schema_extra={"positional": True, "metavar": "ARTIFACT"})
    overrides: tuple[str, ...] = Field(
        default=(), description="data=PATH for other data; evaluate.match=label and the like", json_schema_extra=catalog.POSITIONAL
    )
    split: Literal["train", "valid", "test"] = Field(default="test", description="which split of the recipe's own data")
    against: Path | None = Field(default=None, description="another artifact or run: both on the same rows, with their differences")
    run: Path | None = Field(default=None, description="write the figures and their page into this folder")
    report: Path | None = Field(default=None, description="write the page, one HTML file, to this place")
    fresh: bool = Field(default=False, description="no effect here; taken so that the same flags fit every verb")


def build(options: Options) -> Result:
    """The figures of an artifact."""
    data, rest = data_of(options.overrides)
    return evaluate(
        options.artifact, data=data, split=options.split, against=options.against, overrides=rest, run=options.run, report=options.report
    )


def evaluate(
    artifact: Path | str | Artifact,
    *,
    data: Any = None,
    split: Split = "test",
    against: Path | str | Artifact | None = None,
    overrides: Sequence[str] = (),
    run: Path | None = None,
    report: Path | None = None,
) -> Result:
    """The figures of an artifact.

    data: a table's path, a component such as {name: chimes, rows: 100}, or rows in memory; None: the recipe's own `split`.
    against: another artifact; both are asked about the same rows, and the figures are theirs with the differences.
    run: gets `<split>.json` (the figures), `<split>.html` (their page) and `<split>-ledger.jsonl` (the rows that were lost); a run's own
    ledger stays as it is. report: where else the page goes.
    Raises: ArtifactError, DataError, RecipeError.
    """
    from multitune.measure.extremes import Extremes
    from multitune.measure.report import table

    if report is not None and report.exists() and not report.is_file():
        raise RecipeError("--report", f"{report} is no file.", "Name a file, such as report.html.")
    opened = _opened(artifact)
    recipe = asked_of(opened, overrides, takes=MEASURED if data is None else MEASURED_ELSEWHERE)
    ledger, name = Ledger(), "data" if data is not None else split
    if against is not None:
        return _compared((opened, recipe), _opened(against), overrides, data, split, ledger, (run, report))
    extremes = Extremes(opened.needs)
    try:
        found = _measured(opened, recipe, data, split, ledger, name, extremes)
    finally:
        if run is not None:
            ledger.write(run / f"{name}-ledger.jsonl")
    paths: dict[str, Path] = {"artifact": opened.folder}
    text = "\n".join([table(found).rstrip(), *(["", *(finding.line() for finding in found.findings)] if found.findings else [])])
    result = Result(ok=True, figures=found.figures, findings=found.findings, paths=paths, text=text)
    if run is not None:
        paths["figures"] = write_atomic(run / f"{name}.json", (result.json_line() + "\n").encode())
    paths |= _pages(opened, found, ledger, extremes, {"page": None if run is None else run / f"{name}.html", "report": report})
    return result


def _pages(
    artifact: Artifact, found: Report, ledger: Ledger, extremes: Extremes | None, places: Mapping[str, Path | None]
) -> dict[str, Path]:
    """The page of an evaluation in every place that is asked for; with the curves and the plan of the run that the artifact lies in."""
    wanted = {role: place for role, place in places.items() if place is not None}
    if not wanted:
        return {}
    from multitune.measure.page import Content, page
    from multitune.verbs.train.page import of_run

    facts = {"artifact": artifact.folder.name, "plan": artifact.facts.plan[:12], "multitune": artifact.facts.multitune}
    about = " · ".join((artifact.facts.task, artifact.facts.family.name, found.name))
    told = of_run(artifact.folder.parent, plan=artifact.facts.plan)
    made = page(Content(artifact.facts.name, found, about=about, facts=facts, ledger=ledger.records(), extremes=extremes, **told))
    return {role: write_atomic(place, made.encode("utf-8")) for role, place in wanted.items()}


def _measured(artifact: Artifact, recipe: Recipe, data: Any, split: Split, ledger: Ledger, name: str, extremes: Extremes) -> Report:
    from multitune.measure import tally
    from multitune.measure.evaluator import Evaluator

    _, examples = examples_of(recipe, artifact, data, split, ledger)
    preset = catalog.find("task", recipe.task.name, recipe.task.options, where="task").build()
    wanted = recipe.evaluate
    judge = Evaluator(wanted, preset, artifact.needs, recipe.seed, ledger, recipe.data.max_loss)
    tally.check_columns(judge.questions, {name: examples}, needs=artifact.needs, slices=wanted.slices)
    predictor = artifact.predictor(generate=wanted.generate)
    report = judge.evaluate(predictor, examples, name=name, baselines=wanted.baselines, ablations=wanted.ablations, extremes=extremes)
    return replace(report, findings=(*_told(artifact, examples, data, split), *report.findings))


def _told(artifact: Artifact, examples: Examples, data: Any, split: Split) -> list[Finding]:
    """What the figures should be read with: rows that the model was trained on, classes that it does not know."""
    from multitune.data.plan import findings_of_others

    if data is not None:
        return list(findings_of_others(make_recipe(artifact.request), examples, artifact.needs))
    if split != "train":
        return []
    found = "the model was trained on these rows: the figures do not tell how it does on new ones."
    return [Finding("trained-on", Severity.WARNING, split, found, "Measure on the test split (--split test).", {"rows": len(examples)})]


def _opened(artifact: Path | str | Artifact) -> Artifact:
    from multitune.deliver.artifact import Artifact as Opened
    from multitune.deliver.artifact import open_artifact

    return artifact if isinstance(artifact, Opened) else open_artifact(artifact)


def _compared(
    one: tuple[Artifact, Recipe],
    other: Artifact,
    overrides: Sequence[str],
    data: Any,
    split: Split,
    ledger: Ledger,
    out: tuple[Path | None, Path | None],
) -> Result:
    """Both artifacts on the rows of `data`, or on the split that each recipe states; judged as the first one's recipe says.

    out: the folder of the figures, and where the page goes.
    """
    from multitune.measure import compare, tally
    from multitune.measure.evaluator import Evaluator

    (artifact, recipe), given, name = one, None if data is None else source_of(data), "data" if data is not None else split
    compare.refuse_other_questions(artifact.needs, other.needs)
    theirs = asked_of(other, [text for text in overrides if text.startswith("data.")], takes=MEASURED_ELSEWHERE)
    preset = catalog.find("task", recipe.task.name, recipe.task.options, where="task").build()
    sides: list[compare.Side] = []
    told: list[Finding] = []
    for each, asked, side in ((artifact, recipe, ""), (other, theirs, f"{compare.AGAINST}, ")):
        _, examples = examples_of(asked, each, given, split, ledger)
        judge = Evaluator(recipe.evaluate, preset, each.needs, recipe.seed, ledger, recipe.data.max_loss)
        tally.check_columns(judge.questions, {name: examples}, needs=each.needs)
        sides.append(compare.Side(judge, examples, lambda each=each: each.predictor(generate=recipe.evaluate.generate)))
        told += [replace(finding, where=f"{side}{finding.where}") for finding in _told(each, examples, given, split)]
    report = compare.compare(*sides, name=name)
    report = replace(report, findings=(*told, *report.findings))
    paths: dict[str, Path] = {"artifact": artifact.folder, compare.AGAINST: other.folder}
    text = "\n".join([compare.text(report), *(finding.line() for finding in report.findings)])
    result = Result(ok=True, figures=report.figures, findings=report.findings, paths=paths, text=text)
    run, page = out
    if run is not None:
        paths["figures"] = write_atomic(run / f"{name}-{compare.AGAINST}.json", (result.json_line() + "\n").encode())
    paths |= _pages(artifact, report, ledger, None, {"report": page})
    return result


def asked_of(artifact: Artifact, overrides: Sequence[str], *, takes: Sequence[str]) -> Recipe:
    """The artifact's recipe with overrides. takes: the paths that still have an effect; the rest was settled in training.

    Raises: RecipeError for an override of anything else.
    """
    for text in overrides:
        path = text.partition("=")[0]
        if path == "evaluate.thresholds" or not any(path == one or path.startswith(f"{one}.") for one in takes):
            found = "has no effect on a model that is trained already."
            raise RecipeError(f"override {path}", found, f"Here one may set {', '.join(takes)}, and data=...")
    recipe = make_recipe(artifact.request, overrides)
    for name, need in artifact.needs.parts.items():
        if name not in recipe.data.parts or recipe.data.parts[name].modality != need.modality:
            raise RecipeError(f"data.parts.{name}", f"the model reads it as {need.modality}.", "Leave its modality as it was trained.")
    return recipe


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
    return None, data_plan.everything(over(recipe, data), ledger)


def over(recipe: Recipe, data: Any) -> Recipe:
    """The recipe over other data: its parts, and how they are read; nothing is mixed, joined or split."""
    plain = recipe.model_dump(exclude_unset=True)
    kept = {name: value for name, value in plain["data"].items() if name in {"parts", "answers", "missing", "max_loss"}}
    return make_recipe(plain | {"data": kept | {"source": source_of(data)}})
