"""The page of a run or an evaluation: one file of HTML that needs nothing else, no network and no script.

Its size does not grow with the rows: figures are counts, curves are thinned, tables are cut, media have a budget.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from multitune.core.finding import Finding, Severity
from multitune.measure.page.content import Content
from multitune.measure.page.curves import reliability
from multitune.measure.page.markup import Markup, joined, tag
from multitune.measure.page.media import MOST_BYTES, Media, clipped
from multitune.measure.page.rows import gallery, ledger_table
from multitune.measure.page.style import STYLE
from multitune.measure.page.tables import (
    Sorted,
    ablations_table,
    classes_table,
    figures_table,
    groups_table,
    heat,
    is_heat,
    numeric_columns,
    plain_table,
    sort,
)  # fmt: skip
from multitune.measure.page.training import curves
from multitune.measure.page.words import named, say, switch
from multitune.measure.report import number

MOST_LETTERS = 200_000
MOST_FINDINGS = 100
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; media-src data:"
SHOWN_ELSEWHERE = ("slices", "parts")  # tables of figures that the page lays out itself
ORDER = (Severity.ERROR, Severity.WARNING, Severity.INFO)


def page(content: Content) -> str:
    """The page as HTML."""
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
        tag("title", content.title),
        tag("style", Markup(STYLE)),
    )
    body = tag("body", switch(), tag("main", _sections(content)))
    return f"<!doctype html>\n{tag('html', head, body)}\n"


def _sections(content: Content) -> Iterator[Markup]:
    found, report = sort(content.report), content.report
    yield _top(content, found)
    yield _section("findings", _findings(content.findings or report.findings))
    yield _section("figures", figures_table(found), note="figures_note")
    if any(kind.startswith("shuffled_") for kind in found.variants):
        primary = [name.removeprefix(f"{report.name}/") for name in report.primary]
        yield _section("ablations", ablations_table(found, primary), note="ablations_note")
    for kind, title in (("slice", "slices"), ("source", "sources")):
        if kind in found.groups:
            yield _section(title, groups_table(found, kind))
    yield from _details(content)
    if found.classes:
        yield _section("classes", classes_table(found))
    if content.events:
        yield _section("curves", curves(content), note="curves_note")
    if content.extremes is not None:
        media = Media(MOST_BYTES)
        for title, rows in (("worst", content.extremes.worst()), ("best", content.extremes.best())):
            if rows:
                yield _section(title, gallery(rows, content.extremes, media))
    if content.ledger or content.plan:
        yield _section("ledger", ledger_table(content.ledger) if content.ledger else tag("p", say("ledger_clean")))
    if content.plan:
        yield _section("plan", tag("details", tag("summary", "plan.txt"), tag("pre", clipped(content.plan, MOST_LETTERS))))


def _section(title: str, *inside: Markup, note: str = "") -> Markup:
    told = tag("p", say(note), class_="note") if note else Markup()
    return tag("section", tag("h2", say(title)), told, inside, id=title)


def _top(content: Content, found: Sorted) -> Markup:
    report = content.report
    cards = [_card(name.removeprefix(f"{report.name}/"), found) for name in list(report.primary)[:6]]
    cards.append(tag("div", tag("small", report.name), tag("b", f"{report.rows:,}"), tag("small", say("rows")), class_="card"))
    facts = (tag("span", named(name), ": ", tag("b", value)) for name, value in content.facts.items())
    about = tag("p", content.about, class_="soft")
    return joined(tag("h1", content.title), about, tag("div", cards, class_="cards"), tag("p", facts, class_="facts"))


def _card(name: str, found: Sorted) -> Markup:
    low, high = found.ends.get(name, (None, None))
    sure = "" if low is None or high is None else f"{number(low)} – {number(high)}"
    return tag("div", tag("small", name), tag("b", number(found.own[name])), tag("small", sure), class_="card")


def _findings(findings: Sequence[Finding]) -> Markup:
    if not findings:
        return tag("p", say("no_findings"))
    ordered = sorted(findings, key=lambda finding: ORDER.index(finding.severity))
    return joined(*(_finding(finding) for finding in ordered[:MOST_FINDINGS]))


def _finding(finding: Finding) -> Markup:
    remedy = tag("div", tag("b", say("remedy"), ": "), clipped(finding.remedy, 2000)) if finding.remedy else Markup()
    place = tag("code", f"{finding.severity} · {finding.code} · {finding.where}")
    return tag("div", place, tag("div", clipped(finding.message, 2000)), remedy, class_=f"finding {finding.severity}")


def _details(content: Content) -> Iterator[Markup]:
    """The tables of the metrics: squares of counts as heat, reliability as a curve, the rest as they are."""
    for name, rows in content.report.details.items():
        kind = name.rpartition("/")[2]
        if name in SHOWN_ELSEWHERE:
            continue
        answer = tag("h3", name) if "/" in name else Markup()
        if is_heat(rows):
            yield _section(kind, answer, heat(rows), note="confusion_note")
        elif kind == "reliability":
            columns = numeric_columns(rows)
            points = list(zip(columns["confidence"], columns["accuracy"], strict=True))
            yield _section(kind, answer, reliability(points), plain_table(rows), note="reliability_note")
        elif len(rows) > 1:
            yield _section(kind, answer, plain_table(rows))


__all__ = ["Content", "page"]
