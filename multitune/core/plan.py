"""A Plan is what will happen: every value with its origin, written before anything is spent."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from multitune.core.finding import Finding, Severity
from multitune.core.store import canonical

Origin = Literal["recipe", "default", "derived", "machine"]
Binds = Literal["bits", "speed", "nothing"]
LEGEND = (
    "[recipe] as stated, [default] ours, [derived] from other values or the data, [machine] this computer's;",
    "with `speed` it may change when the run goes on, with `nothing` it is told only, with neither another value gives another result",
)


@dataclass(frozen=True)
class Value:
    """One value of the plan.

    origin: `recipe` (stated), `default` (ours), `derived` (from other values or the data), `machine` (this computer's).
    binds: `bits` (another value would change the result), `speed` (it may change on resume), `nothing` (told, not obeyed).
    """

    value: Any
    origin: Origin
    binds: Binds = "bits"
    note: str = ""


@dataclass(frozen=True)
class Plan:
    """Values by dotted name, in the order in which they are shown; `tables` are shown after the values of their section."""

    name: str
    request: Mapping[str, Any]
    values: Mapping[str, Value]
    findings: tuple[Finding, ...] = ()
    tables: Mapping[str, tuple[tuple[str, ...], ...]] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Any:
        return self.values[name].value

    def hash(self) -> str:
        """The sha256 (hex) of everything that binds bits."""
        bits = {name: value.value for name, value in self.values.items() if value.binds == "bits"}
        return hashlib.sha256(canonical(bits).encode()).hexdigest()

    def text(self, *, golden: bool = False) -> str:
        """The plan as people read it; golden: values of the machine stand as `<machine>`."""
        return "\n".join(_lines(self, golden)) + "\n"

    def to_json(self) -> dict[str, Any]:
        """The plan as plain data; `from_json` gives it back."""
        return {
            "form": 1,
            "name": self.name,
            "hash": self.hash(),
            "request": dict(self.request),
            "values": {name: vars(value) for name, value in self.values.items()},
            "findings": [finding.to_json() for finding in self.findings],
            "tables": {name: [list(row) for row in rows] for name, rows in self.tables.items()},
        }


def from_json(data: Mapping[str, Any]) -> Plan:
    """The plan that `Plan.to_json` wrote."""
    return Plan(
        name=data["name"],
        request=data["request"],
        values={name: Value(**value) for name, value in data["values"].items()},
        findings=tuple(Finding(**(f | {"severity": Severity(f["severity"])})) for f in data["findings"]),
        tables={name: tuple(tuple(row) for row in rows) for name, rows in data["tables"].items()},
    )


def stated(section: str, spec: Any, names: tuple[str, ...], *, binds: Binds = "bits") -> dict[str, Value]:
    """Values for fields of a recipe section: `recipe` where the user stated them, else `default`."""
    return {f"{section}.{name}": Value(_plain(getattr(spec, name)), "recipe" if spec.given(name) else "default", binds) for name in names}


def _plain(value: Any) -> Any:
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    return list(value) if isinstance(value, tuple) else value


def _lines(plan: Plan, golden: bool) -> Iterator[str]:
    yield f"plan of {plan.name}"
    sections: dict[str, list[tuple[str, Value]]] = {}
    for name, value in plan.values.items():
        section, _, rest = name.partition(".")
        sections.setdefault(section, []).append((rest, value))
    for section, rows in sections.items():
        yield ""
        yield section
        texts = [(name, _shown(value, golden), value) for name, value in rows]
        wide = max(len(name) for name, _, _ in texts)
        long = min(44, max(len(text) for _, text, _ in texts))
        for name, text, value in texts:
            mark = "" if value.binds == "bits" else f", {value.binds}"
            note = f"  {value.note}" if value.note and not (golden and value.origin == "machine") else ""
            yield f"  {name:<{wide}}  {text:<{long}}  [{value.origin}{mark}]{note}"
        yield from _table(plan.tables.get(section, ()))
    if plan.findings:
        yield ""
        yield "findings"
        yield from (f"  {finding.line()}" for finding in plan.findings)
    yield ""
    yield from LEGEND


def _shown(value: Value, golden: bool) -> str:
    if golden and value.origin == "machine":
        return "<machine>"
    return as_text(value.value)


def as_text(value: Any) -> str:
    """A value as the plan shows it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int) and abs(value) >= 10_000:
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{k}: {as_text(v)}" for k, v in value.items()) or "none"
    if isinstance(value, list | tuple):
        return ", ".join(as_text(v) for v in value) or "none"
    return str(value) if value not in (None, "") else "none"


def _table(rows: tuple[tuple[str, ...], ...]) -> Iterator[str]:
    if not rows:
        return
    wide = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    yield ""
    for row in rows:
        yield ("    " + "  ".join(f"{cell:<{w}}" for cell, w in zip(row, wide, strict=True))).rstrip()
