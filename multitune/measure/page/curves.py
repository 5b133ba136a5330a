"""Curves as drawings within the page: lines over steps, a reliability curve, an interval on one line."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from multitune.measure.page.markup import Markup, joined, tag
from multitune.measure.page.words import named

WIDE, HIGH = 360.0, 176.0
LEFT, RIGHT, TOP, BOTTOM = 46.0, 8.0, 8.0, 20.0
MOST_POINTS = 240
MOST_LINES = 12
COLOURS = 8
FEWEST_DECADES = 1.5  # values that are wider apart than this are drawn on a logarithmic axis
Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Axis:
    """Values from `low` to `high` along pixels from `begin` to `end`."""

    low: float
    high: float
    begin: float
    end: float
    logarithmic: bool = False

    def at(self, value: float) -> float:
        """Where a value lies."""
        low, high, here = (math.log10(v) if self.logarithmic else v for v in (self.low, self.high, value))
        share = (here - low) / (high - low) if high > low else 0.5
        return round(self.begin + share * (self.end - self.begin), 1)

    def ticks(self) -> list[float]:
        """A few round values within."""
        if self.logarithmic:
            decades = range(math.ceil(math.log10(self.low) - 1e-9), math.floor(math.log10(self.high) + 1e-9) + 1)
            return [10.0**place for place in decades][:: max(1, len(decades) // 5)]
        step = _round_step((self.high - self.low) / 4)
        first = math.ceil(self.low / step - 1e-9)
        return [place * step for place in range(first, math.floor(self.high / step + 1e-9) + 1)]


def chart(
    lines: Mapping[str, Points],
    *,
    mark: float | None = None,
    within: tuple[float, float] | None = None,
    logarithmic: bool = True,
    ours: Collection[str] = (),
) -> Markup:
    """Lines by name over steps. mark: a step to point at. within: the ends of the upright axis; else by the values.

    logarithmic: allowed, where values are all above zero and far apart. ours: names that are no user's, and are translated.
    """
    shown = {name: thinned(points) for name, points in list(lines.items())[:MOST_LINES] if points}
    if not shown:
        return Markup()
    xs = [x for points in shown.values() for x, _ in points]
    across = Axis(min(xs), max(xs), LEFT, WIDE - RIGHT)
    up = _upright([y for points in shown.values() for _, y in points], within, logarithmic)
    drawn = [_line(points, across, up, place, name) for place, (name, points) in enumerate(shown.items())]
    if mark and min(xs) <= mark <= max(xs):
        at = across.at(mark)
        drawn.append(tag("line", x1=at, x2=at, y1=TOP, y2=HIGH - BOTTOM, class_="mark"))
    drawing = tag("svg", _frame(across, up), drawn, viewBox=f"0 0 {WIDE:g} {HIGH:g}", role="img")
    return joined(drawing, legend({name: points[-1][1] for name, points in shown.items()}, ours=ours))


def legend(last: Mapping[str, float], *, ours: Collection[str] = ()) -> Markup:
    """Names beside their lines, with the value at the end. ours: names that are translated."""
    entries = (
        tag(
            "span",
            tag("svg", tag("line", x1=0, x2=22, y1=4, y2=4, class_=_look(place)), viewBox="0 0 22 8"),
            named(name) if name in ours else name,
            f" {short(value)}",
        )
        for place, (name, value) in enumerate(last.items())
    )
    return tag("div", *entries, class_="legend")


def reliability(points: Points) -> Markup:
    """Confidence against the share that is right, both from 0 to 1, with the line of a model that is as sure as it should be."""
    side = 240.0
    across, up = Axis(0.0, 1.0, LEFT, side), Axis(0.0, 1.0, side - BOTTOM, TOP)
    straight = tag("line", x1=across.at(0), y1=up.at(0), x2=across.at(1), y2=up.at(1), class_="mark")
    dots = [tag("circle", cx=across.at(x), cy=up.at(y), r=3, class_="line c0") for x, y in points]
    body = joined(_frame(across, up, bottom=side - BOTTOM), straight, _line(points, across, up, 0, ""), dots)
    return tag("svg", body, viewBox=f"0 0 {side + RIGHT:g} {side:g}", role="img", style="max-width:300px")


def interval(value: float, low: float, high: float, *, beside: Iterable[float], ends: tuple[float, float]) -> Markup:
    """An interval with its figure as a dot, and hollow marks for what stands beside it."""
    axis = Axis(ends[0], ends[1], 5, 145)
    marks = [tag("circle", cx=axis.at(other), cy=9, r=3, class_="beside") for other in beside]
    return tag(
        "svg",
        tag("line", x1=5, x2=145, y1=9, y2=9, class_="grid"),
        tag("line", x1=axis.at(low), x2=axis.at(high), y1=9, y2=9, class_="interval"),
        marks,
        tag("circle", cx=axis.at(value), cy=9, r=2.4, class_="dot"),
        viewBox="0 0 150 18",
        role="img",
    )


def thinned(points: Points) -> list[tuple[float, float]]:
    """At most so many points that a drawing can show: the mean of each stretch, the last step of all kept."""
    finite = [(x, y) for x, y in points if math.isfinite(y)]
    size = math.ceil(len(finite) / MOST_POINTS)
    if size <= 1:
        return finite
    stretches = [finite[start : start + size] for start in range(0, len(finite), size)]
    return [(stretch[-1][0], sum(y for _, y in stretch) / len(stretch)) for stretch in stretches]


def short(value: float) -> str:
    """A number as briefly as its size allows."""
    if value == 0:
        return "0"
    if 1e-3 <= abs(value) < 1e4:
        return f"{value:.4g}"
    return f"{value:.1e}".replace("e-0", "e-").replace("e+0", "e")


def _upright(values: Sequence[float], within: tuple[float, float] | None, logarithmic: bool) -> Axis:
    low, high = within or (min(values), max(values))
    if within is None and logarithmic and low > 0 and math.log10(high / low) > FEWEST_DECADES:
        return Axis(low, high, HIGH - BOTTOM, TOP, logarithmic=True)
    if within is None:
        low = 0.0 if 0 < low < high / 2 else low
        room = (high - low or abs(high) or 1.0) * 0.05
        low, high = (low if low == 0 else low - room), high + room
    return Axis(low, high, HIGH - BOTTOM, TOP)


def _frame(across: Axis, up: Axis, *, bottom: float = HIGH - BOTTOM) -> Markup:
    made: list[Markup] = []
    for value in up.ticks():
        at = up.at(value)
        made.append(tag("line", x1=across.begin, x2=across.end, y1=at, y2=at, class_="grid"))
        made.append(tag("text", short(value), x=across.begin - 6, y=at + 4, text_anchor="end"))
    for value in across.ticks():
        made.append(tag("text", short(value), x=across.at(value), y=bottom + 15, text_anchor="middle"))
    made.append(tag("line", x1=across.begin, x2=across.end, y1=bottom, y2=bottom, class_="axis"))
    return joined(*made)


def _line(points: Points, across: Axis, up: Axis, place: int, name: str) -> Markup:
    if len(points) == 1:
        return tag("circle", tag("title", name), cx=across.at(points[0][0]), cy=up.at(points[0][1]), r=3, class_=_look(place))
    path = " ".join(f"{across.at(x):g},{up.at(y):g}" for x, y in points)
    return tag("polyline", tag("title", name), points=path, class_=_look(place))


def _look(place: int) -> str:
    return f"line c{place % COLOURS}" + (f" d{1 + place % 2}" if place >= COLOURS else "")


def _round_step(rough: float) -> float:
    if rough <= 0:
        return 1.0
    decade = 10.0 ** math.floor(math.log10(rough))
    return next((decade * size for size in (1, 2, 5) if decade * size >= rough), decade * 10)
