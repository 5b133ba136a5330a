"""Says which slices of the rows are surely worse than all rows, and which are too small to say.

After a measurement with `evaluate.slices`: slices of fewer than 30 rows (`small-slices`), and those whose interval lies beyond the figure
of all rows on the worse side (`weak-slices`). With many slices about one in forty does so by chance.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from multitune.core import catalog
from multitune.core.finding import Finding, Severity
from multitune.core.protocols import Check
from multitune.measure.report import Report, number, short

FEW_ROWS = 30
SHOWN = 5


class Options(catalog.Options):
    """No options."""


class Slices(Check):
    """Looks at the primary figures of each slice."""

    def findings(self, evidence: Mapping[str, Any]) -> Iterable[Finding]:
        """`small-slices` and `weak-slices`, each once."""
        report = evidence.get("report")
        return list(_findings(report)) if isinstance(report, Report) else []


def build(options: Options) -> Slices:
    """The check."""
    return Slices()


def _findings(report: Report) -> Iterator[Finding]:
    start = f"{report.name}/slice/"
    rows = {name.removesuffix("/rows"): int(n) for name, n in report.figures.items() if name.startswith(start) and name.endswith("/rows")}
    small = {name.removeprefix(start): number for name, number in rows.items() if number < FEW_ROWS}
    if small:
        named = ", ".join(f"{name} ({count})" for name, count in list(small.items())[:SHOWN])
        found = f"{len(small)} of {len(rows)} slices have fewer than {FEW_ROWS} rows: {named}{', ...' if len(small) > SHOWN else ''}."
        yield Finding("small-slices", Severity.INFO, report.name, found, "See how wide their intervals are.", {"slices": small})
    for name, better in report.primary.items():
        weak = {one: value for one in rows if (value := _weak(report, one, name, better)) is not None}
        if weak:
            worst = sorted(weak, key=lambda one: weak[one], reverse=better == "lower")
            named = ", ".join(f"{one.removeprefix(start)} ({number(weak[one])})" for one in worst[:SHOWN])
            found = f"is surely worse than {number(report.figures[name])} in {len(weak)} of {len(rows)} slices: {named}"
            more = ", ..." if len(weak) > SHOWN else ""
            evidence = {"slices": {one.removeprefix(start): value for one, value in weak.items()}}
            yield Finding(
                "weak-slices", Severity.INFO, name, f"{found}{more}.", "Look at these rows; give them more rows of train.", evidence
            )


def _weak(report: Report, one: str, name: str, better: str) -> float | None:
    """The figure of a slice if its interval lies on the worse side of that of all rows."""
    figure = f"{one}/{short(report, name)}"
    near = report.figures.get(f"{figure}/{'high' if better == 'higher' else 'low'}")
    if near is None:
        return None
    whole = report.figures[name]
    return report.figures[figure] if (near < whole if better == "higher" else near > whole) else None
