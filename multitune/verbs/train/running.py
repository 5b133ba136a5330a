"""From a plan to an artifact with its figures."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from multitune.core import catalog
from multitune.core.finding import Finding, Severity
from multitune.core.ledger import Ledger, shown
from multitune.core.recipe import Recipe
from multitune.core.result import Result
from multitune.core.rundir import RunDir
from multitune.verbs.plan import Planned, make_plan
from multitune.verbs.train.compiling import weighed
from multitune.verbs.train.keeping import obey, on_this_machine, write_plan
from multitune.verbs.train.line import Line, prove_cuts
from multitune.verbs.train.page import PAGE, write_page
from multitune.verbs.train.storing import folder_of, keep

if TYPE_CHECKING:
    from multitune.data.split import Examples
    from multitune.deliver.model_card import Story
    from multitune.measure.evaluator import Evaluator
    from multitune.measure.report import Report
    from multitune.models.predictor import Predictor
    from multitune.tuning.engines.accelerate import Outcome
    from multitune.tuning.ranks import Ranks


SELDOM = 100_000  # passes over what is younger to one over all that there is, while a run starts
GOLDEN = 4
REHEARSED = 16


def run_line(recipe: Recipe, run: RunDir, started: float, *, told: tuple[Finding, ...] = ()) -> Result:
    """Train in a folder that is locked, from its last checkpoint or anew. told: findings on what the folder held before."""
    with ExitStack() as start:
        start.enter_context(_seldom_collected())
        from multitune.tuning.engines.accelerate import processes
        from multitune.tuning.plan import device_of
        from multitune.tuning.plan.allocating import given_back

        ranks = processes(device_of(recipe))
        ledger = _ledger(run, ranks)
        with given_back(), ledger.guarded():
            return _trained(recipe, run, ranks, ledger, started, told, start.close)


@contextmanager
def _seldom_collected() -> Generator[None]:
    """Inside, the collector does not look through all there is: a start makes a million objects that stay, most of them by importing."""
    before = gc.get_threshold()
    gc.set_threshold(*before[:2], SELDOM)
    try:
        yield
    finally:
        gc.set_threshold(*before)


def _trained(
    recipe: Recipe,
    run: RunDir,
    ranks: Ranks,
    ledger: Ledger,
    started: float,
    told: tuple[Finding, ...],
    ready: Callable[[], None],
) -> Result:
    """ready: is called when all is imported and the model stands."""
    from multitune.measure import thresholds
    from multitune.measure.extremes import Extremes
    from multitune.tuning.teaching import Taught
    from multitune.verbs.train import teaching

    asked = on_this_machine(make_plan(recipe, ledger), run)
    ranks.on_main(lambda: obey(asked, run))
    line = Line.start(asked, ledger=ledger, ranks=ranks)
    ready()
    began = time.perf_counter()
    kept = keep(line, run, ranks)
    line, planned = kept.line, kept.line.planned
    ranks.on_main(lambda: write_plan(planned.plan, run))
    judge, examples = evaluator(planned, ledger), planned.data.examples

    def predictor(chosen: Mapping[str, Mapping[str, float]] | None = None) -> Predictor:
        return kept.predictor(recipe.evaluate.generate, thresholds=chosen)

    def watch(rows: Examples, *, using: Evaluator = judge) -> dict[str, float]:
        return {**using.watch(predictor(), rows), **line.watched_loss(rows, ranks=ranks)}

    def before() -> tuple[tuple[Finding, ...], Mapping[str, float]]:
        proven = prove_cuts(line, run)
        if not (run.folder / "checkpoints").exists():
            _rehearse(planned, judge, watch)
        return proven, _untuned(recipe, run, lambda: judge.untuned(predictor(), examples["test"]))

    proven, untuned = ranks.on_main(before) or ((), {})
    taught = teaching.tabled(line, run, ranks, folder_of(line) if recipe.features.store != "off" else None)
    engine = catalog.find("engine", recipe.train.engine.name, recipe.train.engine.options, where="train.engine").build()
    with kept.fitting() as read:
        steps = read if taught is None else Taught(read, taught)
        planned = replace(planned, plan=weighed(line, steps, run, ranks))
        outcome = engine.fit(
            loader=steps,
            family=line.family,
            scope=line.scope,
            loss=line.loss,
            plan=planned.plan,
            run=run,
            ledger=ledger,
            watch=lambda _: watch(examples["valid"]) if "valid" in examples else {},
        )
    line.loader.close()
    training = time.perf_counter() - began
    kept.rest(outcome.best_step)
    from multitune.deliver.artifact import save  # with all that it takes, which the first step need not wait for

    if not ranks.main:
        return Result(ok=True, figures={"steps": float(outcome.step)})
    wanted, extremes = recipe.evaluate, Extremes(planned.data.needs)
    chosen = thresholds.choose(judge, predictor(), examples["valid"])
    judged = predictor(chosen)
    measured = judge.evaluate(judged, examples["test"], baselines=wanted.baselines, ablations=wanted.ablations, extremes=extremes)
    report = thresholds.told(measured, chosen, examples["valid"]).beside(untuned)
    artifact = save(
        line.family,
        folder=run.folder / "artifact",
        plan=planned.plan,
        needs=planned.data.needs,
        scope=line.scope,
        golden=[examples["test"].sample(index) for index in range(min(GOLDEN, len(examples["test"])))],
        figures=report.figures,
        averaged=outcome.averaged,
        thresholds=chosen,
        story=_story(planned, outcome, report, ledger),
    )
    ledger.seal("end")
    figures = {**outcome.figures, **report.figures, "steps": float(outcome.step), "seconds": time.perf_counter() - started}
    figures |= {"train/seconds": training, **kept.figures(), **(taught.counts if taught is not None else {})}
    figures |= {"parameters_moved": float(line.scope.parameters_moved), **{f"rows_{fate}": float(n) for fate, n in ledger.counts().items()}}
    known = {finding.where for finding in planned.plan.findings if finding.code == "few-rows"}  # the plan says it already
    measured_ones = (one for one in report.findings if one.code != "small-split" or f"data.split.{one.where}" not in known)
    heard = taught.findings if taught is not None else ()
    findings = (*told, *planned.plan.findings, *proven, *kept.told, *heard, *outcome.findings, *measured_ones)
    write_page(
        run, planned.plan, outcome=outcome, report=report, findings=findings, ledger=ledger, extremes=extremes, seconds=figures["seconds"]
    )
    lost = (quarantined(name, rows, ledger, run.folder / "ledger") for name, rows in examples.items())
    return _told(run, artifact.folder, figures, findings, report, "\n".join(filter(None, (outcome.summary, kept.summary, *lost))))


def _story(planned: Planned, outcome: Outcome, report: Report, ledger: Ledger) -> Story:
    """What the model's card says beyond the plan."""
    from multitune.deliver.model_card import Story as Told

    said = (f"{finding.where}: {finding.message}" for finding in report.findings if finding.severity != Severity.INFO)
    device = f"{planned.plan['train.device']}, {planned.plan['train.threads']} threads"
    return Told(outcome.step, outcome.best_step, outcome.seconds, device, ledger.counts(), report.primary, tuple(said))


def quarantined(split: str, rows: Examples, ledger: Ledger, folder: Path) -> str:
    """One line on the rows of a split that could not be read: how many, the first cause, where all are; empty where all could."""
    if not ledger.lost():
        return ""
    known = set(rows.ids)
    lost = [record for record in ledger.records() if record.fate == "quarantined" and record.id in known]
    if not lost:
        return ""
    number = len({record.id for record in lost})
    return f"{number} of {len(rows)} {split} rows quarantined: {shown(lost[:1])}; see {folder}"


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
        paths={"run": run.folder, "artifact": artifact, "report": run.folder / PAGE},
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


def _rehearse(planned: Planned, judge: Evaluator, watch: Callable[..., Mapping[str, float]]) -> None:
    """Measure a few rows before anything is spent: are the figures that controls and averaging go by among those that come?

    Where one is not, rows of every label are measured too, without which it may not come. Raises: RecipeError with the figures there are.
    """
    from multitune.tuning.averaging.plan import choice_of
    from multitune.tuning.plan import control_of, plateau_of, watched_figures

    wanted, valid = watched_figures(planned.plan), planned.data.examples.get("valid")
    if not wanted:
        return
    few, figures = replace(judge, ledger=Ledger(), max_loss=1.0), dict[str, float]()
    for labels in (False, True):
        if valid is not None and not figures.keys() >= {*wanted}:
            figures = dict(watch(_few(valid, planned.recipe.evaluate.slices, labels=labels), using=few))
    for control in (control_of(planned.plan), plateau_of(planned.plan)):
        if control is not None:
            control.decide(control.start(), step=0, figures=figures)
    choice = choice_of(planned.plan)
    if choice is not None:
        choice.figure(figures)


def _few(rows: Examples, slices: Sequence[str], *, labels: bool) -> Examples:
    """A few rows of a split, one at least of each source, slice, and where asked label, whose figures would not come otherwise."""
    from multitune.measure.slices import cut

    answers = [rows.values(name) for name, spec in rows.parts.items() if spec.modality in ("category", "labels")] if labels else []
    firsts: dict[tuple[int, Any], int] = {}
    for number, column in enumerate((rows.sources.tolist(), *cut(slices, rows).rows, *answers)):
        for place, value in enumerate(column):
            for one in value if isinstance(value, tuple) else (value,):
                firsts.setdefault((number, one), place)
    return replace(rows, rows=rows.rows[sorted({*range(min(REHEARSED, len(rows))), *firsts.values()})])


def _untuned(recipe: Recipe, run: RunDir, measure: Callable[[], Mapping[str, float]]) -> Mapping[str, float]:
    """The test figures of the model before it is tuned: measured once, kept in the run."""
    if not recipe.evaluate.baselines:
        return {}
    kept = run.read_json("untuned.json")
    if kept is None:
        kept = dict(measure())
        run.write_json("untuned.json", kept)
    return kept
