"""Tables of figures: what a report holds flat, laid out beside what it is to be compared with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from multitune.measure.page.curves import interval
from multitune.measure.page.markup import Inside, Markup, joined, tag
from multitune.measure.page.media import clipped
from multitune.measure.page.words import named, say
from multitune.measure.report import BASELINES, Report, number

MOST_ROWS = 200
GROUPS = ("source", "slice")
BESIDE = (*BASELINES, "against")
WITHOUT, SHUFFLED = ABLATIONS = ("without_", "shuffled_")
ROWS = "rows"
DEEP = 0.75  # a cell of a heat table darker than this has light letters


@dataclass(frozen=True)
class Sorted:
    """A report's figures by short names: the model's own, and those of variants, groups and classes.

    variants: `majority`, `without_image` ... -> figure -> value. groups: `source`, `slice` -> (name, figure) -> value.
    classes: (answer, class) -> `precision`, `recall` -> value. ends: figure -> its interval, for all kinds of figures by their whole name.
    """

    ends: Mapping[str, tuple[float, float]]
    own: dict[str, float] = field(default_factory=dict)
    variants: dict[str, dict[str, float]] = field(default_factory=dict)
    groups: dict[str, dict[tuple[str, str], float]] = field(default_factory=dict)
    classes: dict[tuple[str, str], dict[str, float]] = field(default_factory=dict)


def sort(report: Report) -> Sorted:
    """The figures of a report, each kind by itself; counts of rows are left out."""
    names = {name.removeprefix(f"{report.name}/"): value for name, value in report.figures.items()}
    ends = {name: (names[f"{name}/low"], names[f"{name}/high"]) for name in names if f"{name}/low" in names and f"{name}/high" in names}
    made = Sorted(ends)
    primary = [name.removeprefix(f"{report.name}/") for name in report.primary]
    for name, value in names.items():
        if name.endswith(("/low", "/high")) and name.rpartition("/")[0] in ends:
            continue
        first, _, rest = name.partition("/")
        before, mark, label = f"/{name}".partition("/class/")
        if name.startswith("rows"):
            continue
        if first in BESIDE or first.startswith(ABLATIONS):
            made.variants.setdefault(first, {})[rest] = value
        elif first in GROUPS:
            figure = next((own for own in sorted(primary, key=len, reverse=True) if rest.endswith(f"/{own}")), rest.rpartition("/")[2])
            made.groups.setdefault(first, {})[rest.removesuffix(f"/{figure}"), figure] = value
        elif mark:
            made.classes.setdefault((before.strip("/"), label.rpartition("/")[0]), {})[label.rpartition("/")[2]] = value
        else:
            made.own[name] = value
    return made


def figures_table(found: Sorted) -> Markup:
    """The model's own figures with their intervals, and what stands beside them."""
    kinds = [kind for kind in BESIDE if kind in found.variants]
    rows = [
        [
            tag("b", name) if name in found.ends else name,
            number(value),
            _sure(found, name),
            _bar(found, name, value, [found.variants[kind].get(name) for kind in kinds]),
            *(_told(found.variants[kind].get(name)) for kind in kinds),
        ]
        for name, value in found.own.items()
    ]
    return table([say("figure"), say("value"), say("interval"), "", *map(say, kinds)], rows, numbers={1, 2, *range(4, 4 + len(kinds))})


def ablations_table(found: Sorted, primary: Sequence[str]) -> Markup:
    """For each part the primary figures without it, and with it from other rows; what the second costs is the paired difference."""
    parts = dict.fromkeys(kind.partition("_")[2] for kind in found.variants if kind.startswith(ABLATIONS))
    rows: list[list[Inside]] = []
    for name in primary:
        for part in parts:
            beside = [found.variants.get(f"{kind}{part}", {}).get(name) for kind in ABLATIONS]
            if any(value is not None for value in beside):
                cost = f"{SHUFFLED}{part}/{name}/cost"
                paid = found.variants.get(f"{SHUFFLED}{part}", {}).get(f"{name}/cost")
                bar = _bar(found, name, found.own[name], beside)
                rows.append([name, part, number(found.own[name]), *map(_told, beside), _told(paid), _sure(found, cost), bar])
    heading = [say("figure"), say("part"), say("with_all"), say("left_out"), say("shuffled"), say("cost"), say("interval"), Markup()]
    return table(heading, rows, numbers=set(range(2, 7)))


def groups_table(found: Sorted, kind: str) -> Markup:
    """The figures of each slice or source, its rows first where they are counted."""
    cells = found.groups[kind]
    figures = [figure for figure in dict.fromkeys(figure for _, figure in cells) if figure != ROWS]
    counted = any(figure == ROWS for _, figure in cells)
    heading: list[Inside] = [say(kind), *([say(ROWS)] if counted else [])]
    for figure in figures:
        heading += [figure, say("interval"), Markup()]
    rows: list[list[Inside]] = []
    for name in dict.fromkeys(name for name, _ in cells):
        row: list[Inside] = [name, *([f"{cells.get((name, ROWS), 0):,.0f}"] if counted else [])]
        for figure in figures:
            value, full = cells.get((name, figure)), f"{kind}/{name}/{figure}"
            row += [_told(value), _sure(found, full), "" if value is None else _bar(found, full, value, [found.own.get(figure)])]
        rows.append(row)
    return table(heading, rows, numbers={place for place, cell in enumerate(heading) if place and cell != Markup()})


def classes_table(found: Sorted) -> Markup:
    """Precision and recall of each class."""
    several = any(answer for answer, _ in found.classes)
    kinds = list(dict.fromkeys(kind for cells in found.classes.values() for kind in cells))
    rows = [
        [*([answer] if several else []), label, *(_told(cells.get(kind)) for kind in kinds)]
        for (answer, label), cells in found.classes.items()
    ]
    first = [*([say("answer")] if several else []), say("class")]
    return table([*first, *map(say, kinds)], rows, numbers=set(range(len(first), len(first) + len(kinds))))


def heat(rows: Sequence[Sequence[str]]) -> Markup:
    """Counts in a square, each shaded by its share of its row. The first row and column name the classes."""
    heading, *body = rows
    made = [tag("tr", tag("th", named(heading[0])), (tag("th", cell) for cell in heading[1:]))]
    for name, *cells in body:
        counts = [float(cell) for cell in cells]
        total = sum(counts) or 1.0
        made.append(tag("tr", tag("th", name), (_heat_cell(cell, count / total) for cell, count in zip(cells, counts, strict=True))))
    return tag("div", tag("table", made, class_="heat"), class_="scroll")


def table(heading: Sequence[Inside], rows: Sequence[Sequence[Inside]], *, numbers: set[int] | frozenset[int] = frozenset()) -> Markup:
    """A table of at most so many rows; columns in `numbers` stand to the right."""
    look = ["n" if place in numbers else "w" for place in range(len(heading))]
    made = [tag("tr", (tag("th", cell, class_=kind) for cell, kind in zip(heading, look, strict=True)))]
    made += [tag("tr", (tag("td", cell, class_=kind) for cell, kind in zip(row, look, strict=True))) for row in rows[:MOST_ROWS]]
    more = len(rows) - MOST_ROWS
    rest = tag("p", f"{more:,} ", say("more"), class_="note") if more > 0 else Markup()
    return joined(tag("div", tag("table", made), class_="scroll"), rest)


def plain_table(rows: Sequence[Sequence[str]]) -> Markup:
    """A table as a metric gives it, its first row the heading."""
    heading, *body = rows
    numbers = {place for place in range(len(heading)) if body and all(_is_number(row[place]) for row in body)}
    return table(list(heading), [[clipped(cell) for cell in row] for row in body], numbers=numbers)


def is_heat(rows: Sequence[Sequence[str]]) -> bool:
    """Whether a table is a square of counts under its own names."""
    heading, *body = rows
    return len(body) > 0 and [row[0] for row in body] == list(heading[1:]) and all(_is_number(cell) for row in body for cell in row[1:])


def numeric_columns(rows: Sequence[Sequence[str]]) -> dict[str, list[float]]:
    """The columns of a table that hold numbers alone, by their names."""
    heading, *body = rows
    places: Iterator[int] = (place for place in range(len(heading)) if body and all(_is_number(row[place]) for row in body))
    return {heading[place]: [float(row[place]) for row in body] for place in places}


def _bar(found: Sorted, name: str, value: float, beside: Sequence[float | None]) -> Markup:
    """The interval drawn; nothing where there is none."""
    if name not in found.ends:
        return Markup()
    low, high = found.ends[name]
    marks = [other for other in beside if other is not None]
    within = [low, high, value, *marks]
    inside = min(within) >= 0 and max(within) <= 1
    ends = (0.0, 1.0) if inside else (min(within), max(within))
    return interval(value, low, high, beside=marks, ends=ends)


def _sure(found: Sorted, name: str) -> str:
    low, high = found.ends.get(name, (None, None))
    return "" if low is None or high is None else f"{number(low)} – {number(high)}"


def _told(value: float | None) -> str:
    return "" if value is None else number(value)


def _heat_cell(cell: str, share: float) -> Markup:
    look = "deep" if share > DEEP else "nil" if share == 0 else "some"
    return tag("td", cell, class_=look, style=f"--v:{share:.3f}")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
