"""The page of a run, brought together from what the rooms know of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import multitune
from multitune.core.finding import Finding
from multitune.core.ledger import Ledger
from multitune.core.plan import Plan
from multitune.core.rundir import RunDir, write_atomic

if TYPE_CHECKING:
    from multitune.measure.extremes import Extremes
    from multitune.measure.report import Report
    from multitune.tuning.engines.accelerate import Outcome

PAGE = "report.html"


def write_page(
    run: RunDir,
    plan: Plan,
    *,
    outcome: Outcome,
    report: Report,
    findings: Sequence[Finding],
    ledger: Ledger,
    extremes: Extremes,
    seconds: float,
) -> Path:
    """`report.html` of a run that has been measured."""
    from multitune.measure.page import Content, page
    from multitune.tuning import events

    facts = {
        "steps": f"{outcome.step:,}",
        **({"weights": outcome.weights} if outcome.weights else {"weights of step": f"{outcome.best_step:,}"}),
        "seconds": f"{seconds:,.0f}",
        "steps/s": f"{outcome.steps_per_second:.2f}",
        "parameters moved": f"{plan['moves.parameters']:,}",
        **of_plan(plan),
    }
    content = Content(
        title=plan.name,
        report=report,
        about=about(plan),
        facts=facts,
        events=events.read(run.folder / "events.jsonl"),
        best_step=outcome.best_step,
        findings=findings,
        ledger=ledger.records(),
        extremes=extremes,
        plan=plan.text(),
    )
    return write_atomic(run.folder / PAGE, page(content).encode("utf-8"))


def of_run(folder: Path, *, plan: str) -> dict[str, Any]:
    """What the page of an evaluation takes from the run that its artifact lies in; nothing where it lies in none, or in another's.

    plan: the hash of the plan that the artifact was made by.
    """
    import json

    from multitune.core.plan import from_json
    from multitune.tuning import events

    found: dict[str, Any] = {}
    if (folder / "events.jsonl").is_file() and (folder / "result.json").is_file() and (folder / "plan.json").is_file():
        kept = from_json(json.loads((folder / "plan.json").read_text("utf-8")))
        if kept.hash() != plan:
            return {}
        figures: Mapping[str, float] = json.loads((folder / "result.json").read_text("utf-8"))["figures"]
        found = {"events": events.read(folder / "events.jsonl"), "best_step": int(figures.get("train/best_step", 0)), "plan": kept.text()}
    return found


def about(plan: Plan) -> str:
    """One line on what a plan trains."""
    values = plan.values
    named = [values[name].value for name in ("run.task", "model.name", "strategy.name") if name in values]
    return " · ".join(str(name) for name in named)


def of_plan(plan: Plan) -> dict[str, str]:
    """What a plan says of the machine, and the versions that ran."""
    import torch
    import transformers

    machine = {"device": str(plan["train.device"]), "threads": str(plan["train.threads"]), "plan": plan.hash()[:12]}
    return machine | {"multitune": multitune.__version__, "torch": torch.__version__, "transformers": transformers.__version__}
