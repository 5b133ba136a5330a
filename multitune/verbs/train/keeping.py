"""What a run folder keeps beside its checkpoints: the plan that it obeys, and the answer that it gave."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import replace
from fnmatch import fnmatch
from typing import TYPE_CHECKING, Any

from ruamel.yaml import YAML

from multitune.core.errors import ArtifactError, RunError
from multitune.core.finding import Finding, Severity
from multitune.core.plan import Plan, Value, from_json
from multitune.core.recipe import differences
from multitune.core.result import Result
from multitune.core.rundir import RunDir
from multitune.verbs.plan import Planned
from multitune.verbs.train.page import PAGE

if TYPE_CHECKING:
    pass


THREADS, KEPT = "train.threads", "features.*.kept"


def on_this_machine(planned: Planned, run: RunDir) -> Planned:
    """The plan with what this machine decided when the run began: the compute threads, and which features are kept.

    So it goes on to the same bits on a machine with other cores, or another disk.
    """
    kept = run.read_json("plan.json")
    if kept is None:
        return planned
    before, now = from_json(kept).values, planned.plan.values
    chosen = {name: value for name, value in before.items() if fnmatch(name, KEPT)}
    if THREADS in before and {before[THREADS].origin, now[THREADS].origin} == {"machine"}:
        now = {**now, THREADS: before[THREADS]}
    return replace(planned, plan=replace(planned.plan, values=beside(now, chosen)))


def obey(planned: Planned, run: RunDir) -> None:
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
    write_plan(plan, run)
    run.write_text("recipe.yaml", _yaml(plan.request))


def write_plan(plan: Plan, run: RunDir) -> None:
    """Write the plan, for people and for the run's next start."""
    run.write_json("plan.json", plan.to_json())
    run.write_text("plan.txt", plan.text())


def beside(values: Mapping[str, Value], said: Mapping[str, Value]) -> dict[str, Value]:
    """Values of a plan with more of its section `features`, in their place."""
    own = {name: value for name, value in values.items() if name.startswith("features.")}
    first = next(iter(own), "")
    made: dict[str, Value] = {}
    for name, value in values.items():
        made |= {**own, **said} if name == first else {} if name in own else {name: value}
    return made


def finished(run: RunDir) -> tuple[Result | None, tuple[Finding, ...]]:
    """The answer of a finished run, else None and why what it left does not verify."""
    done = run.read_json("result.json")
    broken = () if done is None else _broken(run)
    return (None if done is None or broken else _answer(done, run)), broken


def _broken(run: RunDir) -> tuple[Finding, ...]:
    """Why the artifact of a finished run does not verify; it is then made anew from the run's last checkpoint."""
    from multitune.deliver import sealing

    try:
        sealing.opened(run.folder / "artifact", sealing.SEAL)
    except ArtifactError as error:
        remedy = "It was made anew from the run's checkpoints."
        return (Finding("artifact-rebuilt", Severity.WARNING, error.where, error.found, remedy),)
    return ()


def _answer(done: Mapping[str, Any], run: RunDir) -> Result:
    """A finished run answers from what it kept."""
    findings = tuple(Finding(**(finding | {"severity": Severity(finding["severity"])})) for finding in done["findings"])
    paths = {"run": run.folder, "artifact": run.folder / "artifact", "report": run.folder / PAGE}
    text = done["text"] + "\n(this run was finished before; --fresh starts it anew)"
    return Result(ok=done["ok"], figures=done["figures"], findings=findings, paths=paths, text=text)


def _yaml(request: Mapping[str, Any]) -> str:
    """A request as a recipe file that `read_recipe` takes, overrides in their places."""
    text = io.StringIO()
    writer = YAML(pure=True)
    writer.default_flow_style, writer.width = None, 120
    writer.dump(dict(request), text)
    return text.getvalue()
