"""Fine-tune a model as a recipe says, measure it, and leave an artifact that proves itself.

The same command again resumes an unfinished run and answers from a finished one. The run folder is locked before anything
heavy is imported, so a second run in it is refused at once.
"""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field
from ruamel.yaml import YAML

from multitune.core import catalog
from multitune.core.errors import ArtifactError, RunError
from multitune.core.finding import Finding, Severity
from multitune.core.ledger import Ledger, shown
from multitune.core.plan import Plan, from_json
from multitune.core.recipe import Recipe, differences
from multitune.core.result import Result
from multitune.core.rundir import RunDir, open_run, run_folder
from multitune.verbs.plan import Planned, as_recipe, make_plan

if TYPE_CHECKING:
    from multitune.core.protocols import Batch, Family, Loss
    from multitune.data.loader import Loader
    from multitune.measure.evaluator import Evaluator
    from multitune.measure.report import Report
    from multitune.models.anatomy import Anatomy
    from multitune.models.predictor import Predictor
    from multitune.models.replay import Settled
    from multitune.tuning.ranks import Ranks
    from multitune.tuning.scope import Scope

GOLDEN = 4
REHEARSED = 16
THREADS = "train.threads"


class Options(catalog.Options):
    """Which recipe, where the run lives."""

    recipe: Path = Field(description="a YAML file", json_schema_extra={"positional": True, "metavar": "RECIPE"})
    overrides: tuple[str, ...] = Field(default=(), description="key=value, such as train.lr=3e-5", json_schema_extra=catalog.POSITIONAL)
    run: Path | None = Field(default=None, description="the run's folder; by default runs/<name>-<first 6 of the request's hash>")
    fresh: bool = Field(default=False, description="move what the folder holds aside and start anew")


def build(options: Options) -> Result:
    """Train from a recipe file."""
    return train(options.recipe, overrides=options.overrides, run=options.run, fresh=options.fresh)


def train(
    recipe: Recipe | Mapping[str, Any] | Path | str, *, overrides: Sequence[str] = (), run: Path | str | None = None, fresh: bool = False
) -> Result:
    """Train, evaluate the best checkpoint on the test split, and leave an artifact.

    figures: those of the test split, `seconds`, `steps`. paths: `run`, `artifact`.
    Raises: UserError for what the recipe or the data get wrong; Fault for the machine or the numbers; Stopped on a signal.
    """
    started = time.perf_counter()
    asked = as_recipe(recipe, overrides)
    folder = Path(run) if run is not None else None
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        return _among_ranks(asked, folder, fresh, started)
    with _opened(asked, folder, fresh) as locked:
        answer, broken = _finished(locked)
        return answer or _run(asked, locked, started, told=broken)


def _opened(recipe: Recipe, folder: Path | None, fresh: bool) -> RunDir:
    return open_run(
        request=recipe.request(), request_hash=recipe.request_hash(), name=recipe.name, folder=folder, fresh=fresh, over_unspent=True
    )


def _among_ranks(recipe: Recipe, folder: Path | None, fresh: bool, started: float) -> Result:
    """The same over several processes: the main one holds the lock and writes; the others look at nothing before its word."""
    from multitune.tuning.engines.accelerate import processes
    from multitune.tuning.plan import device_of

    ranks = processes(device_of(recipe))
    with ExitStack() as stack:
        run = ranks.on_main(lambda: stack.enter_context(_opened(recipe, folder, fresh)))
        found = ranks.on_main(lambda: _finished(run) if run is not None else (None, ()))
        answer, broken = found if found is not None else (None, ())
        (finished,) = ranks.from_main([int(answer is not None)])
        if finished:
            return answer or Result(ok=True)
        where = run_folder(name=recipe.name, request_hash=recipe.request_hash(), folder=folder)
        return _run(recipe, run or RunDir(where, None), started, told=broken)


@dataclass(frozen=True)
class Line:
    """Everything between a plan and its first step: the model, what may move in it, the loss, the rows."""

    planned: Planned
    family: Family
    anatomy: Anatomy
    scope: Scope
    loss: Loss
    loader: Loader

    @classmethod
    def start(cls, planned: Planned, *, ledger: Ledger, ranks: Ranks) -> Line:
        """Load the weights, decide what may move, and open the loader."""
        from multitune.data.loader import Loader
        from multitune.models import anatomy as anatomies
        from multitune.models.load import Weights
        from multitune.models.plan import build_family
        from multitune.tuning import scope as scopes
        from multitune.tuning.plan import loss_of, planned_table

        recipe, plan = planned.recipe, planned.plan
        family = build_family(recipe, planned.data.needs, Weights("pretrained", seed=recipe.seed))
        anatomy = anatomies.find(family)
        scope = scopes.apply(
            planned_table(plan),
            anatomy,
            family,
            total_steps=plan["train.steps"],
            seed=recipe.seed,
            batch_norm=plan["train.batch_norm"],
            unused=planned.model.unused,
        )
        loader = Loader.of(
            planned.data.examples["train"],
            family.preparer,
            recipe=recipe,
            plan=plan,
            ledger=ledger,
            world=ranks.world,
            rank=ranks.rank,
            gather=ranks.gather_texts,
        )
        return cls(planned, family, anatomy, scope, loss_of(recipe, planned.preset, planned.data.needs), loader)

    def cuts(self) -> Settled:
        """The cuts of what never moves in this run, proven on made-up rows."""
        from multitune.models.replay import settle

        moving = {entry.name for entry in self.scope.entries}
        return settle(self.family, moving, batch_norm=self.planned.plan["train.batch_norm"])

    def reached(self, batch: Batch) -> tuple[set[str], float]:
        """The public names of the tensors that one forward and backward of `batch` gives a gradient, and the loss."""
        from multitune.tuning.step import reached

        return reached(self.family, self.loss, self.scope, batch)


def _run(recipe: Recipe, run: RunDir, started: float, *, told: tuple[Finding, ...] = ()) -> Result:
    from multitune.tuning.engines.accelerate import processes
    from multitune.tuning.plan import device_of

    ranks = processes(device_of(recipe))
    ledger = _ledger(run, ranks)
    with ledger.guarded():
        return _trained(recipe, run, ranks, ledger, started, told)


def _trained(recipe: Recipe, run: RunDir, ranks: Ranks, ledger: Ledger, started: float, told: tuple[Finding, ...]) -> Result:
    from multitune.data.loader import shared_memo
    from multitune.deliver.artifact import save
    from multitune.models.predictor import Predictor

    planned = _on_this_machine(make_plan(recipe, ledger), run)
    ranks.on_main(lambda: _obey(planned, run))
    line = Line.start(planned, ledger=ledger, ranks=ranks)
    judge, examples = evaluator(planned, ledger), planned.data.examples

    def predictor() -> Predictor:
        return Predictor(line.family, generate=recipe.evaluate.generate, memo=shared_memo)

    def before() -> tuple[tuple[Finding, ...], Mapping[str, float]]:
        proven = _cuts(line, run)
        if not (run.folder / "checkpoints").exists():
            _rehearse(planned, judge, predictor())
        return proven, _untuned(recipe, run, lambda: judge.untuned(predictor(), examples["test"]))

    proven, untuned = ranks.on_main(before) or ((), {})
    engine = catalog.find("engine", recipe.train.engine.name, recipe.train.engine.options, where="train.engine").build()
    outcome = engine.fit(
        loader=line.loader,
        family=line.family,
        scope=line.scope,
        loss=line.loss,
        plan=planned.plan,
        run=run,
        ledger=ledger,
        watch=lambda _: judge.watch(predictor(), examples["valid"]) if "valid" in examples else {},
    )
    line.loader.close()
    if not ranks.main:
        return Result(ok=True, figures={"steps": float(outcome.step)})
    wanted = recipe.evaluate
    report = judge.evaluate(predictor(), examples["test"], baselines=wanted.baselines, ablations=wanted.ablations).beside(untuned)
    artifact = save(
        line.family,
        folder=run.folder / "artifact",
        plan=planned.plan,
        needs=planned.data.needs,
        scope=line.scope,
        golden=[examples["test"].sample(index) for index in range(min(GOLDEN, len(examples["test"])))],
        figures=report.figures,
    )
    ledger.seal("end")
    figures = {**outcome.figures, **report.figures, "steps": float(outcome.step), "seconds": time.perf_counter() - started}
    figures |= {"parameters_moved": float(line.scope.parameters_moved), **{f"rows_{fate}": float(n) for fate, n in ledger.counts().items()}}
    findings = (*told, *planned.plan.findings, *proven, *outcome.findings, *report.findings)
    lost = (quarantined(name, rows.ids, ledger, run.folder / "ledger") for name, rows in examples.items())
    return _told(run, artifact.folder, figures, findings, report, "\n".join(filter(None, (outcome.summary, *lost))))


def quarantined(split: str, ids: Sequence[str], ledger: Ledger, folder: Path) -> str:
    """One line on the rows of a split that could not be read: how many, the first cause, where all are; empty where all could."""
    known = set(ids)
    lost = [record for record in ledger.records() if record.fate == "quarantined" and record.id in known]
    if not lost:
        return ""
    number = len({record.id for record in lost})
    return f"{number} of {len(ids)} {split} rows quarantined: {shown(lost[:1])}; see {folder}"


def _ledger(run: RunDir, ranks: Ranks) -> Ledger:
    """The run's ledger; on other ranks than the main one a copy in memory: each knows all that was sealed, one writes."""
    if ranks.main:
        return Ledger(run.folder / "ledger")
    copy = Ledger()
    for record in Ledger(run.folder / "ledger").records():
        copy.record(**asdict(record))
    return copy


def _told(run: RunDir, artifact: Path, figures: Mapping[str, float], findings: tuple[Finding, ...], report: Report, summary: str) -> Result:
    """The result, kept in the run so that the same command answers from it."""
    from multitune.measure.report import table

    result = Result(
        ok=all(finding.severity != Severity.ERROR for finding in findings),
        figures=figures,
        findings=findings,
        paths={"run": run.folder, "artifact": artifact},
        text="\n".join([table(report).rstrip(), "", summary, *(finding.line() for finding in findings), f"artifact: {artifact}"]),
    )
    run.write_json("findings.json", [finding.to_json() for finding in findings])
    run.write_json(
        "result.json", {"ok": result.ok, "figures": dict(figures), "findings": [f.to_json() for f in findings], "text": result.text}
    )
    return result


def evaluator(planned: Planned, ledger: Ledger) -> Evaluator:
    """What measures this run, in the loop and at its end."""
    from multitune.measure.evaluator import Evaluator

    recipe = planned.recipe
    return Evaluator(recipe.evaluate, planned.preset, planned.data.needs, recipe.seed, ledger, recipe.data.max_loss)


def _rehearse(planned: Planned, judge: Evaluator, predictor: Predictor) -> None:
    """Measure a few rows before anything is spent: is the figure that early stopping waits for among those that come?

    Raises: RecipeError with the figures that there are.
    """
    from multitune.tuning.plan import control_of

    control, valid = control_of(planned.plan), planned.data.examples.get("valid")
    if control is not None:
        few = replace(judge, ledger=Ledger(), max_loss=1.0)
        figures = few.watch(predictor, replace(valid, rows=valid.rows[:REHEARSED])) if valid is not None else {}
        control.decide(control.start(), step=0, figures=figures)


def _untuned(recipe: Recipe, run: RunDir, measure: Callable[[], Mapping[str, float]]) -> Mapping[str, float]:
    """The test figures of the model before it is tuned: measured once, kept in the run."""
    if not recipe.evaluate.baselines:
        return {}
    kept = run.read_json("untuned.json")
    if kept is None:
        kept = dict(measure())
        run.write_json("untuned.json", kept)
    return kept


def _cuts(line: Line, run: RunDir) -> tuple[Finding, ...]:
    """Prove the run's cuts once, and keep what was found; the findings of those that do not hold."""
    kept = run.read_json("cuts.json")
    if kept is None:
        settled = line.cuts()
        run.write_json("cuts.json", {"cuts": settled.lines(), "findings": [finding.to_json() for finding in settled.findings]})
        return settled.findings
    return tuple(Finding(**(finding | {"severity": Severity(finding["severity"])})) for finding in kept["findings"])


def _on_this_machine(planned: Planned, run: RunDir) -> Planned:
    """The plan with the compute threads that a run began with, so that it goes on to the same bits on a machine with other cores."""
    kept = run.read_json("plan.json")
    before = from_json(kept).values.get(THREADS) if kept is not None else None
    now = planned.plan.values[THREADS]
    if before is None or {before.origin, now.origin} != {"machine"}:
        return planned
    return replace(planned, plan=replace(planned.plan, values={**planned.plan.values, THREADS: before}))


def _obey(planned: Planned, run: RunDir) -> None:
    """Keep the plan and what it rests on, or find both as they were kept.

    Raises: RunError with what differs.
    """
    from multitune.tuning import basis

    keep_plan(planned.plan, run)
    basis.keep(planned.data.examples, run)


def keep_plan(plan: Plan, run: RunDir) -> None:
    """Write the plan before anything is spent; on resume, refuse one that would change the result.

    Raises: RunError with the values that differ.
    """
    kept = run.read_json("plan.json")
    if kept is not None:
        old = from_json(kept)
        if old.hash() != plan.hash():
            before = {name: value.value for name, value in old.values.items() if value.binds == "bits"}
            after = {name: value.value for name, value in plan.values.items() if value.binds == "bits"}
            shown = "; ".join(list(differences(before, after))[:8])
            raise RunError(str(run.folder), f"its plan no longer holds: {shown}.", "Undo the change, or start anew with --fresh.")
    run.write_json("plan.json", plan.to_json())
    run.write_text("plan.txt", plan.text())
    run.write_text("recipe.yaml", _yaml(plan.request))


def _broken(run: RunDir) -> tuple[Finding, ...]:
    """Why the artifact of a finished run does not verify; it is then made anew from the run's last checkpoint."""
    from multitune.deliver import sealing

    try:
        sealing.opened(run.folder / "artifact", sealing.SEAL)
    except ArtifactError as error:
        remedy = "It was made anew from the run's checkpoints."
        return (Finding("artifact-rebuilt", Severity.WARNING, error.where, error.found, remedy),)
    return ()


def _yaml(request: Mapping[str, Any]) -> str:
    """A request as a recipe file that `read_recipe` takes, overrides in their places."""
    text = io.StringIO()
    writer = YAML(pure=True)
    writer.default_flow_style, writer.width = None, 120
    writer.dump(dict(request), text)
    return text.getvalue()


def _finished(run: RunDir) -> tuple[Result | None, tuple[Finding, ...]]:
    """The answer of a finished run, else None and why what it left does not verify."""
    done = run.read_json("result.json")
    broken = () if done is None else _broken(run)
    return (None if done is None or broken else _answer(done, run)), broken


def _answer(done: Mapping[str, Any], run: RunDir) -> Result:
    """A finished run answers from what it kept."""
    findings = tuple(Finding(**(finding | {"severity": Severity(finding["severity"])})) for finding in done["findings"])
    paths = {"run": run.folder, "artifact": run.folder / "artifact"}
    text = done["text"] + "\n(this run was finished before; --fresh starts it anew)"
    return Result(ok=done["ok"], figures=done["figures"], findings=findings, paths=paths, text=text)
