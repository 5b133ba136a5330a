"""Show what a recipe will do, every value with its origin, before anything is spent.

The model is built without weights. `--prove` builds it with them, runs one real micro-batch forward and backward, and checks
that exactly the planned parameters get a gradient, that a row's prediction does not depend on its neighbours, and that the cuts hold.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from multitune.core import catalog
from multitune.core.finding import Finding, Severity
from multitune.core.ledger import Ledger
from multitune.core.plan import Plan, Value
from multitune.core.protocols import Family, Needs, TaskPreset, TaughtLoss
from multitune.core.recipe import Recipe, make_recipe, read_recipe
from multitune.core.result import Result

if TYPE_CHECKING:
    from multitune.data.bucketing.grouping import Grouping
    from multitune.data.plan import Outline
    from multitune.models.features.choosing import Choice
    from multitune.models.plan import ModelOutline
    from multitune.verbs.train import Line
    from multitune.verbs.train.deciding import Possible


class Options(catalog.Options):
    """Which recipe, and whether to prove it."""

    recipe: Path = Field(description="a YAML file", json_schema_extra={"positional": True, "metavar": "RECIPE"})
    overrides: tuple[str, ...] = Field(default=(), description="key=value, such as train.lr=3e-5", json_schema_extra=catalog.POSITIONAL)
    prove: bool = Field(default=False, description="load the weights and prove the plan on one micro-batch")
    run: Path | None = Field(default=None, description="also keep the plan in this run's folder")
    fresh: bool = Field(default=False, description="with --run: move what the folder holds aside")


def build(options: Options) -> Result:
    """The plan of a recipe file."""
    return plan(options.recipe, overrides=options.overrides, prove=options.prove, folder=options.run, fresh=options.fresh)


@dataclass(frozen=True)
class Planned:
    """A plan with what it was made from: the outline of the data and of the model; which rows come together, if any do."""

    recipe: Recipe
    plan: Plan
    preset: TaskPreset
    data: Outline
    model: ModelOutline
    grouping: Grouping | None = None


def as_recipe(recipe: Recipe | Mapping[str, Any] | Path | str, overrides: Sequence[str] = ()) -> Recipe:
    """A recipe from a file, a mapping or a recipe, with overrides; rows in memory are held as what their request is made of."""
    if isinstance(recipe, Path | str):
        return read_recipe(recipe, overrides)
    from multitune.data.sources.rows import held

    values = recipe.model_dump(exclude_unset=True) if isinstance(recipe, Recipe) else recipe
    if not isinstance(values, Mapping) or not isinstance(values.get("data"), Mapping):
        return make_recipe(values, overrides)
    return make_recipe({**values, "data": held(values["data"])}, overrides)


def plan(
    recipe: Recipe | Mapping[str, Any] | Path | str,
    *,
    overrides: Sequence[str] = (),
    prove: bool = False,
    folder: Path | None = None,
    fresh: bool = False,
) -> Result:
    """What a recipe will do; figures: rows, steps, parameters and how many of them move."""
    asked = as_recipe(recipe, overrides)
    planned = make_plan(asked, Ledger())
    proof = Result(ok=True)
    if prove:
        planned, proof = _proof(planned)
    findings, figures = [*planned.plan.findings, *proof.findings], _figures(planned.plan) | dict(proof.figures)
    text = planned.plan.text() + (f"\n{proof.text}" if prove else "")
    paths: dict[str, Path] = {}
    if folder is not None:
        from multitune.core.rundir import open_run
        from multitune.verbs.train import keep_plan

        with open_run(request=asked.request(), request_hash=asked.request_hash(), name=asked.name, folder=folder, fresh=fresh) as run:
            keep_plan(planned.plan, run)
            paths = {"plan": run.folder / "plan.json", "text": run.folder / "plan.txt"}
    ok = all(finding.severity != Severity.ERROR for finding in findings)
    return Result(ok=ok, figures=figures, findings=tuple(findings), paths=paths, text=text)


def make_plan(recipe: Recipe, ledger: Ledger) -> Planned:
    """Join what each room states: the data, then the model that it asks for, then the tuning of both; and who brought their plug-ins."""
    with catalog.noting() as noted:
        planned = _planned(recipe, ledger)
    brought = {f"plug-ins.{kind}.{name}": Value(whose, "derived") for (kind, name), whose in sorted(noted.items())}
    return replace(planned, plan=replace(planned.plan, values={**planned.plan.values, **brought})) if brought else planned


def _planned(recipe: Recipe, ledger: Ledger) -> Planned:
    from multitune.data import plan as data_plan
    from multitune.data.bucketing.outlook import look
    from multitune.data.loader import augmentations
    from multitune.measure import tally, thresholds
    from multitune.models import plan as model_plan
    from multitune.tuning import averaging
    from multitune.tuning import plan as tuning_plan
    from multitune.tuning.plan.compiling import told_before

    preset = catalog.find("task", recipe.task.name, recipe.task.options, where="task").build()
    head = {
        "run.task": Value(recipe.task.name, "recipe", "nothing"),
        "run.seed": Value(recipe.seed, "recipe" if recipe.given("seed") else "default"),
    }
    augmentations(recipe.data.inputs)  # one that is not there is told before a row is read
    data = data_plan.outline(recipe, ledger)
    thresholds.check(recipe.evaluate, data.needs, data.examples)
    asked = tuple(tally.questions(recipe.evaluate, preset, data.needs))
    tally.check_columns(asked, data.examples, needs=data.needs, slices=recipe.evaluate.slices)
    model = model_plan.state(recipe, data.needs)
    towers = [tower.name for tower in model.anatomy.towers]
    loss = tuning_plan.loss_of(recipe, preset, data.needs)
    outlook = look(recipe, data.examples["train"], model.blueprint.preparer, over=loss.over)
    tuned = tuning_plan.state(
        recipe,
        rows=data.rows_per_epoch,
        needs=data.needs,
        anatomy=model.anatomy,
        preset=preset,
        unused=model.unused,
        random=[name for name in towers if model.values[f"model.towers.{name}.random_in_training"].value],
        outlook=outlook,
        way=lambda figure: tally.way(asked, figure),
    )
    moving = tuning_plan.moving_names(recipe, tuned.anatomy, total=tuned.values["train.steps"].value, unused=model.unused)
    taught, told = _taught(loss, data.needs)
    found = model_plan.asked_features(recipe)
    in_turn = tuning_plan.moving_in_turn(recipe, tuned.anatomy, total=tuned.values["train.steps"].value, unused=model.unused)
    found |= model_plan.cuts(model, recipe, moving, rows=sum(map(len, data.examples.values())), in_turn=in_turn)
    stated = head | data_plan.state(recipe, data) | dict(model.values) | found
    averaging.refuse_all_new(recipe, model.blueprint, model.anatomy, moving)
    made = Plan(
        name=recipe.name,
        request=recipe.request(),
        values=stated | dict(tuned.values) | taught,
        findings=(*data.findings, *model.findings, *tuned.findings, *told),
        tables=dict(tuned.tables),
    )
    return Planned(recipe, told_before(made), preset, data, model, outlook.grouping)


def _taught(loss: object, needs: Needs) -> tuple[dict[str, Value], tuple[Finding, ...]]:
    """What the plan says of a loss's teacher; what opens one is imported only where there is one."""
    if not isinstance(loss, TaughtLoss):
        return {}, ()
    from multitune.verbs.train import teaching

    return teaching.plan(loss, needs)


def _figures(plan: Plan) -> dict[str, float]:
    wanted = ("train.steps", "train.steps_per_epoch", "model.parameters", "moves.parameters")
    return {name: float(plan[name]) for name in wanted if name in plan.values}


def _proof(planned: Planned) -> tuple[Planned, Result]:
    """Build with weights, run one micro-batch, compare what gets a gradient with what the plan says moves; with what is then known."""
    from multitune.models.predictor import Predictor
    from multitune.tuning.ranks import Ranks
    from multitune.verbs.train import Line, compiling, teaching

    line = Line.start(planned, ledger=Ledger(), ranks=Ranks())
    started = time.perf_counter()
    step = next(iter(line.loader.steps(0, 1)))
    batch = teaching.of_batch(line.loss, planned.data.needs, planned.data.examples["train"], step.micro[0][1])
    read = time.perf_counter()
    reached, loss = line.reached(batch)
    ran = time.perf_counter()
    planned_names = line.scope.moving_names(0)
    silent, extra = sorted(planned_names - reached), sorted(reached - planned_names)
    samples = [planned.data.examples["train"].sample(index) for index in range(min(3, len(planned.data.examples["train"])))]
    alone = _alone_equals_among(Predictor(line.family), samples)
    line.loader.close()
    found, choices = _choices(line)
    known = replace(planned, plan=compiling.proven(line, step.micro, keeps=any(choice.kept for choice in choices)))
    checks = {
        "the loss of the first micro-batch is finite": math.isfinite(loss),
        f"every one of the {len(planned_names)} tensors that move at step 0 gets a gradient": not silent,
        "nothing else gets one": not extra,
        "a row's prediction does not depend on its neighbours": alone,
    }
    evidence = {"silent": silent[:5], "extra": extra[:5]}
    findings = tuple(
        Finding("not-proven", Severity.ERROR, "plan --prove", f"does not hold: {text}.", evidence=evidence)
        for text, holds in checks.items()
        if not holds
    )
    text = "proof\n" + "\n".join(f"  {'holds' if holds else 'FAILS'}: {name}" for name, holds in checks.items())
    text += "".join(f"\n  cut {told}" for told in found.lines)
    text += "".join(f"\n  features of {choice.line()}" for choice in choices)
    text += f"\n  first micro-batch, {len(batch)} rows: read {read - started:.2f} s, both passes {ran - read:.2f} s, loss {loss:.4f}\n"
    findings += found.findings
    figures = {
        "proof/cuts": float(len({seam.cut.name for stage in found.stages for seam in stage.seams.values()})),
        "proof/seconds_saved": sum(choice.saved for choice in choices if choice.kept),
        "proof/loss": loss,
        "proof/seconds_read": read - started,
        "proof/seconds_step": ran - read,
        "proof/holds": float(all(checks.values())),
    }
    return known, Result(ok=all(checks.values()), figures=figures, findings=findings, text=text)


def _choices(line: Line) -> tuple[Possible, Sequence[Choice]]:
    """The cuts of the run, proven, and which of them a run would keep, measured."""
    from multitune.verbs.train.deciding import choose, possible

    found = possible(line)
    return found, choose(line, found).choices if line.planned.recipe.features.store != "off" else ()


def _alone_equals_among(predictor: Any, samples: Sequence[Any]) -> bool:
    among = predictor.predict(list(samples))
    alone = [predictor.predict([sample])[0] for sample in samples]
    return all(_same(one, other) for one, other in zip(among, alone, strict=True))


def _same(one: Any, other: Any) -> bool:
    from multitune.models.predictor import plain

    return plain(one) == plain(other)


__all__ = ["Family", "Options", "Planned", "as_recipe", "build", "make_plan", "plan"]
