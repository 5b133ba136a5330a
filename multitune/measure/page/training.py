"""The section of curves: whatever was told step by step, each kind in a drawing of its own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from multitune.measure.page.content import Content
from multitune.measure.page.curves import MOST_LINES, chart
from multitune.measure.page.markup import Markup, joined, tag
from multitune.measure.page.tables import GROUPS, MOST_ROWS
from multitune.measure.page.words import say

Lines = dict[str, list[tuple[float, float]]]
OWN = "train/"
FIRST = ("loss", "valid", "lr", "gradient_norm", "update_ratio", "part_share", "loss_share", "learned_share", "drift", "padding", "seconds")
SHARES = ("part_share", "loss_share", "padding")
MOST_CHARTS = 24


def curves(content: Content) -> Markup:
    """Drawings of losses, rates, norms, updates, shares, times, and of every figure of the validation split."""
    drawn: list[Markup] = []
    for title, lines in _ordered(_charts(content.events)):
        within = (0.0, 1.0) if title in SHARES else None
        made = chart(
            lines, mark=content.best_step, within=within, logarithmic=title != "lr", ours=lines if title == "seconds" else ("all",)
        )
        drawn.append(tag("figure", tag("h3", say(title)), made) if made else Markup())
    more = tag("p", f"{len(drawn) - MOST_CHARTS} ", say("more"), class_="note") if len(drawn) > MOST_CHARTS else Markup()
    return joined(tag("div", drawn[:MOST_CHARTS], class_="charts"), more)


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
