"""Medians, ratios and spreads of what sides answered, and whether figures are as wanted."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.beside.running import Answer, Found


@dataclass(frozen=True)
class Wanted:
    """What a figure is to be; a bound that is None binds nothing."""

    name: str
    at_least: float | None = None
    at_most: float | None = None

    def met(self, value: float) -> bool:
        """Whether the value is within both bounds."""
        return (self.at_least is None or value >= self.at_least) and (self.at_most is None or value <= self.at_most)

    def __str__(self) -> str:
        bounds = ((">=", self.at_least), ("<=", self.at_most))
        return " and ".join(f"{sign} {bound:g}" for sign, bound in bounds if bound is not None)


def median(found: Sequence[Answer], name: str) -> float:
    """The median of a number over a side's repeats."""
    return statistics.median(float(answer[name]) for answer in found)


def spread(found: Sequence[Answer], name: str) -> float:
    """How far a number's repeats lie apart: the largest less the smallest, as a share of the median; 0 for one repeat."""
    values = [float(answer[name]) for answer in found]
    middle = statistics.median(values)
    return (max(values) - min(values)) / abs(middle) if middle else 0.0


def best(found: Found, name: str, among: Iterable[str]) -> str:
    """Of these sides the one whose median is smallest."""
    return min(among, key=lambda side: median(found[side], name))


def ratio(found: Found, name: str, over: str, under: str) -> float:
    """The median of one side over that of another."""
    return median(found[over], name) / median(found[under], name)


def extrapolated(seconds: Sequence[float], epochs: int) -> float:
    """The seconds of many epochs from a few that were measured: the first, and the median of those after it for each of the rest."""
    if epochs <= len(seconds):
        return sum(seconds[:epochs])
    return seconds[0] + (epochs - 1) * statistics.median(seconds[1:])


def judged(figures: Mapping[str, float], wanted: Sequence[Wanted]) -> tuple[list[str], bool]:
    """A Markdown table of the figures and what was wanted of them, and whether all are as wanted; one that is not there is not."""
    bounds = {one.name: one for one in wanted}
    lines = ["| figure | value | wanted | |", "|---|---|---|---|"]
    for name, value in figures.items():
        one = bounds.get(name)
        verdict = "" if one is None else ("met" if one.met(value) else "**not met**")
        lines.append(f"| `{name}` | {value:.4g} | {one or ''} | {verdict} |")
    lines += [f"| `{name}` | | {one} | **not measured** |" for name, one in bounds.items() if name not in figures]
    return lines, all(name in figures and one.met(figures[name]) for name, one in bounds.items())


def table(found: Found, names: Sequence[str], *, first: str) -> Iterator[str]:
    """The sides as a Markdown table: medians, and the spread of what comes first. names: of an answer, `first` among them or not."""
    columns = [first, *(name for name in names if name != first)]
    yield "| | " + " | ".join([columns[0], "spread", *columns[1:]]) + " |"
    yield "|---" * (len(columns) + 2) + "|"
    for side, repeats in found.items():
        shown = [_shown(repeats, name) for name in columns]
        yield f"| {side} | " + " | ".join([shown[0], f"{100 * spread(repeats, first):.1f} % of {len(repeats)}", *shown[1:]]) + " |"


def _shown(repeats: Sequence[Answer], name: str) -> str:
    return f"{median(repeats, name):.4g}" if all(name in answer for answer in repeats) else ""
