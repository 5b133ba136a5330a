"""The section of curves: whatever was told step by step, each kind in a drawing of its own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from multitune.measure.page.content import Content
from multitune.measure.page.curves import MOST_LINES, chart
from multitune.measure.page.markup import Markup, joined, tag
from multitune.measure.page.tables import GROUPS, MOST_ROWS
from multitune.measure.page.words import named, say

Lines = dict[str, list[tuple[float, float]]]
OWN = "train/"
FIRST = ("loss", "valid", "lr", "gradient_norm", "update_ratio", "part_share", "loss_share", "learned_share", "drift", "padding", "seconds")
SHARES = ("part_share", "loss_share", "padding")
PARTS = ("wait", "forward", "backward", "optimizer")  # of a step's time
MOST_CHARTS = 24


def curves(content: Content) -> Markup:
    """Drawings of losses, rates, norms, updates, shares, times, and of every figure of the validation split."""
    drawn: list[Markup] = []
    charts = _charts(content.events)
    for title, lines in _ordered(charts):
        within = (0.0, 1.0) if title in SHARES else None
        made = chart(
            lines, mark=content.best_step, within=within, logarithmic=title != "lr", ours=lines if title == "seconds" else ("all",)
        )
        drawn.append(tag("figure", tag("h3", say(title)), made) if made else Markup())
    more = tag("p", f"{len(drawn) - MOST_CHARTS} ", say("more"), class_="note") if len(drawn) > MOST_CHARTS else Markup()
    return joined(_time_spent(charts.get("seconds", {})), tag("div", drawn[:MOST_CHARTS], class_="charts"), more)


def _time_spent(lines: Mapping[str, Sequence[tuple[float, float]]]) -> Markup:
    """One line: which share of the time each part of a step took, over the steps of which all parts are known."""
    known = [dict(lines.get(part, ())) for part in PARTS]
    steps = [step for step in known[0] if all(step in part for part in known)]
    sums = {name: sum(part[step] for step in steps) for name, part in zip(PARTS, known, strict=True)}
    total = sum(sums.values())
    if not total:
        return Markup()
    told = (joined("" if place == 0 else ", ", named(name), f" {share / total:.0%}") for place, (name, share) in enumerate(sums.items()))
    return tag("p", say("time_spent"), *told, class_="note")


def _charts(events: Iterable[Mapping[str, Any]]) -> dict[str, Lines]:
    """title -> line -> points: `gradient_norm` -> `image`; figures of a split by their last step, those of slices left out."""
    charts: dict[str, Lines] = {}
    for event in events:
        name: str = event["name"]
        if any(f"/{group}/" in name for group in GROUPS):
            continue
        if name.startswith(OWN):
            title, _, line = name.removeprefix(OWN).partition("/")
            title, line = ("seconds", "wait") if title == "wait_seconds" else (title, line or "all")
        elif name.startswith("drift/"):
            title, _, line = name.partition("/")
        else:
            title = f"{name.partition('/')[0]}: {name.rpartition('/')[2]}"
            line = name.partition("/")[2].rpartition("/")[0] or name.rpartition("/")[2]
        charts.setdefault(title, {}).setdefault(line, []).append((float(event["step"]), float(event["value"])))
    for lines in charts.values():
        for line in list(lines)[MOST_ROWS:]:
            del lines[line]
    return charts


def _ordered(charts: Mapping[str, Lines]) -> list[tuple[str, Lines]]:
    """Known titles first, in the order in which one asks; a drawing that would hold too many lines keeps those that end highest."""

    def place(title: str) -> int:
        kind = title if title in FIRST else "valid" if ": " in title else ""
        return FIRST.index(kind) if kind else len(FIRST)

    return [(title, _few(charts[title])) for title in sorted(charts, key=place)]


def _few(lines: Lines) -> Lines:
    if len(lines) <= MOST_LINES:
        return lines
    kept = sorted(lines, key=lambda line: abs(lines[line][-1][1]), reverse=True)[:MOST_LINES]
    return {line: lines[line] for line in lines if line in kept}
