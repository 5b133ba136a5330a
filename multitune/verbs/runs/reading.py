"""What a run folder says of itself, read without a lock and without torch: one that is damaged is told, and read as far as it goes."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from multitune.core.finding import Finding, Severity
from multitune.core.rundir import REQUEST, TAGS

RESULT, PLAN, EVENTS = "result.json", "plan.json", "events.jsonl"
DEPTH = 3  # folders of runs within folders of runs
TAIL = 65_536  # bytes of events.jsonl: the newest evaluation is at its end
COUNTS = ("rows", "rows_lost")  # of a split; no measure of quality
_CHECKPOINT = re.compile(r"step-(\d{6,})")
_ASIDE = re.compile(r".*\.old-\d+")


@dataclass(frozen=True)
class Seen:
    """One run. name: below the folder that was asked for. state: for people. date: seconds since 1970 of the newest of its files.

    values: the plan's, by dotted name; empty where there is none. following: those of them that only follow from others. figures: its result's, or those of the newest evaluation so far.
    """

    name: str
    folder: Path
    hash: str
    tags: tuple[str, ...]
    task: str
    strategy: str
    state: str
    finished: bool
    values: Mapping[str, Any]
    following: Collection[str]
    figures: Mapping[str, float]
    date: float
    findings: tuple[Finding, ...] = ()

    def best(self) -> str:
        """The figure that says most: the first of the test split with an interval, else the first of it or of validation; empty: none."""
        split = [name for name in self.figures if name.startswith("test/")] or [name for name in self.figures if name.startswith("valid/")]
        measured = [name for name in split if name.partition("/")[2] not in COUNTS]
        return next((name for name in measured if f"{name}/low" in self.figures), measured[0] if measured else "")


def is_run(folder: Path) -> bool:
    """Whether a folder is a run's."""
    return os.path.isfile(folder / REQUEST)  # a folder that cannot be read is none


def runs_in(folder: Path, *, depth: int = DEPTH) -> Iterator[Path]:
    """The run folders in a folder, by name; those that were moved aside are left out, and so are folders that cannot be read."""
    try:
        inside = sorted(
            one for one in folder.iterdir() if not one.name.startswith(".") and not _ASIDE.fullmatch(one.name) and os.path.isdir(one)
        )
    except OSError:
        return
    for one in inside:
        if is_run(one):
            yield one
        elif depth > 1:
            yield from runs_in(one, depth=depth - 1)


def read(folder: Path, *, name: str = "") -> Seen:
    """A run, as far as its files can be read; what cannot is among its findings."""
    findings: list[Finding] = []
    stamp = _mapping(folder / REQUEST, findings)
    plan, result = _mapping(folder / PLAN, findings), _mapping(folder / RESULT, findings)
    request = _inner(stamp, "request")
    planned = {key: dict[str, Any](value) for key, value in _inner(plan, "values").items() if isinstance(value, dict)}
    values = {key: value.get("value") for key, value in planned.items()}
    if plan and not values:
        findings.append(_damaged(folder / PLAN, "it has no values"))
    if result and not _inner(result, "figures"):
        findings.append(_damaged(folder / RESULT, "it has no figures"))
    finished = bool(_inner(result, "figures"))
    seconds, measured = (0.0, {}) if finished else _so_far(folder / EVENTS, findings)
    figures = _numbers(_inner(result, "figures")) if finished else measured | ({"seconds": seconds} if seconds else {})
    return Seen(
        name=name or folder.resolve().name,
        folder=folder,
        hash=str(stamp.get("hash", "")),
        tags=_tags(folder / TAGS, findings),
        task=_named(values.get("run.task") or request.get("task")),
        strategy=_strategy(values, request),
        state=_state(folder, finished=finished, began=bool(seconds), steps=values.get("train.steps"), damaged=bool(findings)),
        finished=finished,
        values=values,
        following={key for key, value in planned.items() if (value.get("origin"), value.get("binds")) == ("derived", "nothing")},
        figures=figures,
        date=_date(folder),
        findings=tuple(findings),
    )


def _state(folder: Path, *, finished: bool, began: bool, steps: object, damaged: bool) -> str:
    if finished:
        return "finished"
    step = _step(folder / "checkpoints")
    of = f" of {steps}" if isinstance(steps, int) else ""
    if step:
        return f"stopped at step {step}{of}"
    if os.path.exists(folder / RESULT):
        return "damaged"
    if began:
        return "unfinished, no checkpoint"
    return "damaged" if damaged else "planned only" if os.path.exists(folder / PLAN) else "not begun"


def _step(checkpoints: Path) -> int:
    """Of the newest checkpoint; 0 without one."""
    try:
        found = [_CHECKPOINT.fullmatch(one.name) for one in checkpoints.iterdir()]
    except OSError:
        return 0
    return max((int(one[1]) for one in found if one), default=0)


def _so_far(path: Path, findings: list[Finding]) -> tuple[float, dict[str, float]]:
    """Seconds of training, and the figures of the newest evaluation, from the end of the events; a torn line is left out."""
    if not os.path.exists(path):
        return 0.0, {}
    try:
        with path.open("rb") as stream:
            stream.seek(max(0, path.stat().st_size - TAIL))
            lines = stream.read().decode("utf-8", errors="replace").split("\n")
    except OSError as error:
        findings.append(_damaged(path, error.strerror or str(error)))
        return 0.0, {}
    seconds, step, figures = 0.0, -1, dict[str, float]()
    for event in map(_event, lines):
        seconds = max(seconds, event.get("seconds", 0.0))
        if str(event.get("name", "")).startswith("valid/"):
            figures = figures if event["step"] == step else {}
            step, figures[event["name"]] = event["step"], float(event["value"])
    return seconds, figures


def _event(line: str) -> dict[str, Any]:
    try:
        event = json.loads(line)
    except ValueError:
        return {}
    numbers = ("step", "seconds", "value")
    sound = isinstance(event, dict) and "name" in event and all(isinstance(event.get(name), int | float) for name in numbers)  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]
    return event if sound else {}


def _mapping(path: Path, findings: list[Finding]) -> dict[str, Any]:
    """A JSON object; empty where there is no such file, or none that can be read, which is then told."""
    found = _json(path, findings, empty={})
    if isinstance(found, dict):
        return found  # pyright: ignore[reportUnknownVariableType]  its keys are JSON's: text
    findings.append(_damaged(path, "it holds no object"))
    return {}


def _tags(path: Path, findings: list[Finding]) -> tuple[str, ...]:
    found = _json(path, findings, empty=[])
    if isinstance(found, list):
        return tuple(" ".join(str(tag).split()) for tag in found)  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    findings.append(_damaged(path, "it holds no list"))
    return ()


def _json(path: Path, findings: list[Finding], *, empty: object) -> object:
    if not os.path.exists(path):
        return empty
    try:
        return json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError):
        findings.append(_damaged(path, "it is no JSON"))
    except OSError as error:
        findings.append(_damaged(path, error.strerror or str(error)))
    return empty


def _damaged(path: Path, why: str) -> Finding:
    return Finding("damaged-run", Severity.WARNING, str(path), f"cannot be read ({why}).", "The rest of the run is shown.")


def _inner(held: Mapping[str, Any], name: str) -> dict[str, Any]:
    inner = held.get(name)
    return inner if isinstance(inner, dict) else {}  # pyright: ignore[reportUnknownVariableType]  its keys are JSON's: text


def _numbers(figures: Mapping[str, Any]) -> dict[str, float]:
    numbers = {name: value for name, value in figures.items() if isinstance(value, int | float) and not isinstance(value, bool)}
    return {name: float(value) for name, value in numbers.items() if math.isfinite(value)}


def _named(stated: object) -> str:
    """The name of a component, stated as a word or as a mapping."""
    name = stated.get("name", "") if isinstance(stated, dict) else stated  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    return name if isinstance(name, str) else ""


def _strategy(values: Mapping[str, Any], request: Mapping[str, Any]) -> str:
    asked = request.get("strategy")
    if isinstance(asked, list):
        chained = any(isinstance(one, str) or "name" in one for one in asked)  # pyright: ignore[reportUnknownVariableType]
        return "phases" if "strategy.phases.0" in values or chained else "table"
    return _named(values.get("strategy.name") or request.get("strategy"))


def _date(folder: Path) -> float:
    """When the run last wrote something that tells how far it is."""
    for name in (RESULT, EVENTS, PLAN, REQUEST):
        try:
            return (folder / name).stat().st_mtime
        except OSError:
            continue
    return 0.0
