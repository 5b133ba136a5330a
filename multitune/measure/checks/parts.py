"""Says whether the model uses every part that it reads.

After a measurement with `evaluate.ablations`: a part that could as well come from another row, within the paired interval of what that
costs, is named (`ignores-part`); where every part costs something, that is said too (`uses-parts`). A model that was trained with broken
sounds is found out by it: shuffled sounds cost it nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from multitune.core import catalog
from multitune.core.finding import Finding, Severity
from multitune.core.protocols import Check
from multitune.measure.report import Report, ablated, number, short, variant_of


class Options(catalog.Options):
    """No options."""


class Parts(Check):
    """Looks at each primary figure with its part shuffled; where that could not be measured, with the part left out."""

    def findings(self, evidence: Mapping[str, Any]) -> Iterable[Finding]:
        """`ignores-part` for each figure that does not need a part, or `uses-parts` once."""
        report = evidence.get("report")
        return list(_findings(report)) if isinstance(report, Report) else []


def build(options: Options) -> Parts:
    """The check."""
    return Parts()


def _findings(report: Report) -> Iterator[Finding]:
    parts = ablated(report)
    used: dict[str, str] = {}
    for part in parts:
        variants = {name: variant for name in report.primary if (variant := _measured(report, name, part))}
        costs = {name: _costs(report, name, variant) for name, variant in variants.items()}
        needed = [name for name, cost in costs.items() if cost]
        if needed:
            used[part] = needed[0]
        for name in (name for name, cost in costs.items() if not cost):
            yield _ignored(report, name, variants[name], part, [short(report, one) for one in needed])
    if len(parts) > 1 and all(part in used for part in parts):
        yield _used(report, used)


def _measured(report: Report, name: str, part: str) -> str:
    """The variant that tells whether a figure needs a part; empty where none was measured."""
    variants = [variant_of(report, name, f"{kind}_{part}") for kind in ("shuffled", "without")]
    return next((variant for variant in variants if variant in report.figures), "")


def _costs(report: Report, name: str, variant: str) -> bool:
    """Whether it surely is worse without the part: beyond the interval of its cost, else beyond that of the figure itself."""
    low = report.figures.get(f"{variant}/cost/low")
    if low is not None:
        return low > 0
    value = report.figures[variant]
    if report.primary[name] == "higher":
        return value < report.figures.get(f"{name}/low", report.figures[name])
    return value > report.figures.get(f"{name}/high", report.figures[name])


def _ignored(report: Report, name: str, variant: str, part: str, needed: list[str]) -> Finding:
    way = "with that of other rows" if "/shuffled_" in variant else "without it"
    found = f"{number(report.figures[variant])} {way}, {number(report.figures[name])} with its own: {_cost(report, variant)}"
    return Finding(
        "ignores-part",
        Severity.INFO if needed else Severity.WARNING,
        name,
        f'does not depend on "{part}": it is {found}.',
        f"Keep the part: {', '.join(needed)} needs it."
        if needed
        else "See whether the part is whole in the data; leave it out, or train longer.",
        {"part": part, "value": report.figures[name], "without": report.figures[variant]},
    )


def _cost(report: Report, variant: str) -> str:
    cost, low, high = (report.figures.get(f"{variant}/cost{end}") for end in ("", "/low", "/high"))
    return "no sure difference" if cost is None or low is None or high is None else f"that costs {_sure(cost, low, high)}"


def _used(report: Report, used: Mapping[str, str]) -> Finding:
    """Said once: what each part is worth, and which of them the model could do without."""
    worth: list[str] = []
    spare: list[str] = []
    for part, name in used.items():
        variant = _measured(report, name, part)
        cost, low, high = (report.figures.get(f"{variant}/cost{end}") for end in ("", "/low", "/high"))
        told = "" if cost is None or low is None or high is None else f" costs {_sure(cost, low, high)} of {short(report, name)}"
        worth.append(f'{"shuffling" if "/shuffled_" in variant else "leaving out"} "{part}"{told or " makes it worse"}')
        low_without = report.figures.get(f"{variant_of(report, name, f'without_{part}')}/cost/low")
        if low_without is not None and low_without <= 0:
            spare.append(f'"{part}"')
    every = "both parts" if len(used) == 2 else f"all {len(used)} parts"
    less = f" Leaving out {' or '.join(spare)} costs nothing: the others say enough." if spare else ""
    return Finding("uses-parts", Severity.INFO, report.name, f"uses {every}: {'; '.join(worth)}.{less}")


def _sure(cost: float, low: float, high: float) -> str:
    return f"{number(cost)} ({number(low)} to {number(high)})"
