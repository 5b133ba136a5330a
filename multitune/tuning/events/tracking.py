"""A run's events in other tools too: one that is missing, cannot be reached or fails is told once, and the run goes on without it."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from multitune.core import catalog
from multitune.core.errors import MultituneError, RecipeError
from multitune.core.finding import Finding, Severity
from multitune.core.plan import Plan, Value
from multitune.core.protocols import Tracker
from multitune.core.recipe import Component
from multitune.core.rundir import RunDir

FIELD = "train.trackers"
FOLDER = "trackers"


@dataclass
class Tracking:
    """The trackers that still take events, by name. findings: what became of the others."""

    open: dict[str, Tracker] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    @classmethod
    def of(cls, plan: Plan, run: RunDir, *, after: int) -> Tracking:
        """The trackers that a plan names, opened. after: the step that the run goes on from."""
        made = cls()
        known = {finding.where for finding in plan.findings}
        for number, asked in enumerate(planned(plan)):
            where = f"{FIELD}.{number}"
            try:
                plugin = catalog.find("tracker", asked.name, asked.options, where=where)
                folder = run.folder / FOLDER / asked.name
                made.open[asked.name] = plugin.build(folder=folder, name=run.folder.name, after=after, config=_config(plan))
            except (MultituneError, *catalog.BROKEN) as error:
                if where not in known:
                    made._lost(asked.name, where, error, "was not opened")
        return made

    def write(self, values: Mapping[str, float], *, step: int) -> None:
        """The finite values to every tracker."""
        told = {name: value for name, value in values.items() if math.isfinite(value)}
        for name, tracker in list(self.open.items()):
            try:
                tracker.write(told, step=step)
            except (MultituneError, *catalog.BROKEN) as error:
                del self.open[name]
                self._lost(name, name, error, f"stopped taking figures at step {step}")

    def close(self) -> None:
        """Close what is open."""
        for name, tracker in self.open.items():
            try:
                tracker.close()
            except (MultituneError, *catalog.BROKEN) as error:
                self._lost(name, name, error, "was not closed well")
        self.open.clear()

    def _lost(self, name: str, where: str, error: BaseException, what: str) -> None:
        cause = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:200]
        remedy = "events.jsonl has every figure; the run goes on."
        self.findings.append(Finding("tracker-lost", Severity.WARNING, where, f"the tracker {name} {what} ({cause}).", remedy))


def state(trackers: Sequence[Component]) -> dict[str, Value]:
    """The plan's value, where a recipe names trackers: they change no bit, and may change when a run goes on."""
    asked = [{"name": one.name, **one.options} if one.options else one.name for one in trackers]
    return {FIELD: Value(asked, "recipe", "speed")} if asked else {}


def planned(plan: Plan) -> list[Component]:
    """The trackers that a plan names."""
    value = plan.values.get(FIELD)
    return [] if value is None else [Component.model_validate(one) for one in value.value]


def missing(trackers: Sequence[Component]) -> Iterator[Finding]:
    """The trackers of a recipe whose packages are not installed, found without importing them.

    Raises: PluginError for an unknown one, or options that it does not take; RecipeError for one that is named twice.
    """
    names = [asked.name for asked in trackers]
    if twice := [name for name in names if names.count(name) > 1]:
        raise RecipeError(FIELD, f"{twice[0]} is named twice.", "Keep one of the two.")
    for number, asked in enumerate(trackers):
        module: Any = catalog.find("tracker", asked.name, asked.options, where=f"{FIELD}.{number}").module
        package = vars(module).get("PACKAGE", "")
        if package and importlib.util.find_spec(package) is None:
            found = f"the tracker {asked.name} is not installed, so the run goes on without it."
            remedy = f'python -m pip install "multitune[{asked.name}]"'
            yield Finding("tracker-not-installed", Severity.WARNING, f"{FIELD}.{number}", found, remedy)


def _config(plan: Plan) -> dict[str, str | float]:
    """The plan's values as trackers take them: numbers and texts."""
    plain = {name: value.value for name, value in plan.values.items()}
    return {name: value if isinstance(value, str | int | float) else str(value) for name, value in plain.items() if value is not None}
