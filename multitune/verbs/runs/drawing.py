"""Runs as text: a table with a line for each, or their plans and figures side by side; as wide as the screen, and no wider."""

from __future__ import annotations

import shutil
import textwrap
import time
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence

from multitune.core.plan import as_text
from multitune.verbs.runs.reading import Seen

GAP = "  "
WITHOUT_SCREEN = 1000  # columns where nobody looks: a file, a pipe, Python
LEAST = 16  # columns that a run needs beside others
LINES = 8  # of one value
DROPPED = ("hash", "task", "strategy", "seconds", "date")  # what a narrow table leaves out, in this order
CLIPPED = ("figure", "state", "run")
TAGS = 12  # columns that tags keep before others are left out
COUNTED = frozenset({"rows", "rows_lost", "steps", "best_step", "parameters_moved"})
ABSENT = "-"


def columns() -> int:
    """Of the screen, or of the variable COLUMNS; many where there is neither."""
    return shutil.get_terminal_size((WITHOUT_SCREEN, 24)).columns


def table(runs: Sequence[Seen], *, figure: str, width: int) -> Iterator[str]:
    """A heading and a line for each run. figure: the one to show; empty: for each run the one that says most, with its name."""
    cells = {
        "run": [run.name for run in runs],
        "hash": ["" if run.hash[:6] in run.name else run.hash[:6] for run in runs],
        "tags": [", ".join(run.tags) for run in runs],
        "task": [run.task for run in runs],
        "strategy": [run.strategy for run in runs],
        "state": [run.state for run in runs],
        "figure": [told(run, figure) if figure else _best(run) for run in runs],
        "seconds": [_seconds(run) for run in runs],
        "date": [_date(run) for run in runs],
    }
    shown = {name: column for name, column in cells.items() if any(column) or name == "run"}
    wide, dropped = _fitted({name: max(map(cells_of, [name, *column])) for name, column in shown.items()}, width)
    for row in [list(wide), *([shown[name][place] for name in wide] for place in range(len(runs)))]:
        yield GAP.join(_aligned(name, cell, wide[name]) for name, cell in zip(wide, row, strict=True)).rstrip()
    if dropped:
        yield f"({width} columns have no room for: {', '.join(dropped)})"


def beside(runs: Sequence[Seen], *, width: int) -> Iterator[str]:
    """Runs side by side: what they are, where their plans differ, and all their figures."""
    facts: dict[str, list[str]] = {
        "hash": [run.hash[:12] for run in runs],
        "tags": [", ".join(run.tags) for run in runs],
        "task": [run.task for run in runs],
        "strategy": [run.strategy for run in runs],
        "state": [run.state for run in runs],
        "seconds": [_seconds(run) for run in runs],
        "date": [_date(run) for run in runs],
    }
    plan, figures = differences(runs), _figures(runs)
    names = max(map(cells_of, [*facts, *plan, *figures]))
    blocks = ({"": [run.name for run in runs]} | {name: row for name, row in facts.items() if any(row)}, plan, figures)
    room = (width - 2 - names) // len(runs) - len(GAP)
    longest = [max(cells_of(block[name][place]) for block in blocks for name in block) for place in range(len(runs))]
    wide = [min(room, 60, long) for long in longest]
    yield from _block(blocks[0], names, wide)
    if len(runs) > 1:
        yield from ("", "plan" if plan else "plan: no value differs")
        yield from _block(plan, names, wide)
    yield from ("", "figures" if figures else "figures: none yet")
    yield from _block(figures, names, wide)


def fits(number: int, *, width: int) -> bool:
    """Whether so many runs have room side by side."""
    return number * (LEAST + len(GAP)) + 2 * LEAST <= width


def grouped(runs: Sequence[Seen], *, width: int) -> Iterator[str]:
    """Where the plans of many runs differ: each value, and beneath it which runs have it."""
    differing = differences(runs)
    yield "plan" if differing else "plan: no value differs"
    for name, row in differing.items():
        yield f"  {name}"
        for value in dict.fromkeys(row):
            have = ", ".join(run.name for run, cell in zip(runs, row, strict=True) if cell == value)
            yield from textwrap.wrap(f"{value}: {have}", max(width, 40), initial_indent="    ", subsequent_indent="      ")


def differences(runs: Sequence[Seen]) -> dict[str, list[str]]:
    """The values of plans that are not the same in all runs, as text for each run: those that only follow from others come last."""
    names = sorted(_merged([run.values for run in runs]), key=lambda name: all(name in run.following for run in runs if name in run.values))
    rows = {name: [as_text(run.values[name]) if name in run.values else ABSENT for run in runs] for name in names}
    return {name: row for name, row in rows.items() if len(set(row)) > 1}


def told(run: Seen, figure: str) -> str:
    """A figure of a run with its interval, empty where it has none."""
    if figure not in run.figures:
        return ""
    value, low, high = (run.figures.get(name) for name in (figure, f"{figure}/low", f"{figure}/high"))
    sure = f" ({number(low)} to {number(high)})" if low is not None and high is not None else ""
    return f"{value:,.0f}" if figure.rpartition("/")[2] in COUNTED else f"{number(run.figures[figure])}{sure}"


def number(value: float) -> str:
    """A figure to three places, a small one to four digits."""
    if value and abs(value) < 0.01:
        return f"{value:.4g}"
    return f"{value:.3f}" if abs(value) < 100 else f"{value:,.1f}"


def cells_of(text: str) -> int:
    """How many columns a text takes on a screen: a Chinese sign takes two."""
    return sum(2 if unicodedata.east_asian_width(sign) in "WF" else 1 for sign in text)


def _figures(runs: Sequence[Seen]) -> dict[str, list[str]]:
    """All figures, those of intervals beside what they belong to."""
    names = _merged([run.figures for run in runs])
    ends = {f"{name}/{end}" for name in names for end in ("low", "high")}
    return {name: [told(run, name) or ABSENT for run in runs] for name in names if name not in ends}


def _merged(every: Sequence[Iterable[str]]) -> list[str]:
    """The names of all, each after the one that it follows."""
    order: list[str] = []
    for names in every:
        place = 0
        for name in names:
            if name in order:
                place = order.index(name)
            else:
                order.insert(place, name)
            place += 1
    return order


def _block(rows: Mapping[str, Sequence[str]], names: int, wide: Sequence[int]) -> Iterator[str]:
    for name, row in rows.items():
        wrapped = [_wrapped(cell, width) for cell, width in zip(row, wide, strict=True)]
        for line in range(max(map(len, wrapped))):
            cells = [_padded(lines[line] if line < len(lines) else "", width) for lines, width in zip(wrapped, wide, strict=True)]
            yield ("  " + GAP.join([_padded("" if line else name, names), *cells])).rstrip()


def _wrapped(cell: str, width: int) -> list[str]:
    lines = textwrap.wrap(cell, max(width, 1)) or [""]
    return lines if len(lines) <= LINES else [*lines[: LINES - 1], "..."]


def _fitted(natural: Mapping[str, int], width: int) -> tuple[dict[str, int], list[str]]:
    """The widths of columns that fit, and the names of those that do not: tags are cut first, and get back what is left over."""
    wide, dropped = dict(natural), list[str]()
    if _total(wide) > width and "tags" in wide:
        wide["tags"] = min(TAGS, wide["tags"])
    for name in DROPPED:
        if _total(wide) > width and wide.pop(name, 0):
            dropped.append(name)
    for name in CLIPPED:
        if (over := _total(wide) - width) > 0 and name in wide:
            wide[name] = min(wide[name], max(TAGS, wide[name] - over))
    if "tags" in wide:
        wide["tags"] = min(natural["tags"], wide["tags"] + max(0, width - _total(wide)))
    return wide, dropped


def _total(wide: Mapping[str, int]) -> int:
    return sum(wide.values()) + len(GAP) * (len(wide) - 1)


def _aligned(name: str, cell: str, width: int) -> str:
    if cells_of(cell) > width:
        while cells_of(cell) > width - 1:
            cell = cell[:-1]
        cell += "…"
    return " " * (width - cells_of(cell)) + cell if name == "seconds" else _padded(cell, width)


def _padded(cell: str, width: int) -> str:
    return cell + " " * (width - cells_of(cell))


def _best(run: Seen) -> str:
    name = run.best()
    return f"{name} {told(run, name)}" if name else ""


def _seconds(run: Seen) -> str:
    return f"{run.figures['seconds']:,.1f}" if "seconds" in run.figures else ""


def _date(run: Seen) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(run.date))
