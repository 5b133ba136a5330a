"""The worst and the best rows as one can see and hear them, and the ledger's totals."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from multitune.core.ledger import Record
from multitune.core.protocols import Answer, Category, Embedding, Labels, Number, Text
from multitune.measure.extremes import Extremes, Kept
from multitune.measure.page.curves import short
from multitune.measure.page.markup import Inside, Markup, joined, tag
from multitune.measure.page.media import Media, clipped
from multitune.measure.page.tables import table
from multitune.measure.page.words import say

LIKELIEST = 3


def gallery(rows: Sequence[Kept], extremes: Extremes, media: Media) -> Markup:
    """Each row with its parts, what is true of it and what was said."""
    return tag("div", (_row(kept, extremes, media) for kept in rows), class_="rows")


def ledger_table(records: Iterable[Record]) -> Markup:
    """Fates and causes with how often each came and one row for an example; numbers within causes are left out."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for record in records:
        found.setdefault((record.fate, record.part, re.sub(r"\d[\d.,]*", "#", record.cause)), []).append(record.id)
    ordered = sorted(found.items(), key=lambda entry: (-len(entry[1]), entry[0]))
    rows: list[list[Inside]] = [[fate, part, clipped(cause), f"{len(ids):,}", clipped(ids[0], 80)] for (fate, part, cause), ids in ordered]
    return table([say("fate"), say("part"), say("cause"), say("count"), say("example")], rows, numbers={3})


def _row(kept: Kept, extremes: Extremes, media: Media) -> Markup:
    needs = extremes.needs
    parts = (_part(name, media, kept) for name in needs.parts if name in kept.sample.parts)
    answers = (_answer(name, given, kept.truths.get(name)) for name, given in kept.prediction.answers.items())
    word = "row_loss" if needs.answers else "row_apart"
    foot = tag("small", clipped(kept.sample.id, 80), " · ", say(word), f" {short(kept.loss)}")
    return tag("div", parts, answers, foot, class_="row")


def _part(name: str, media: Media, kept: Kept) -> Markup:
    return tag("div", tag("small", name), media.show(kept.sample.parts[name]))


def _answer(name: str, given: Answer, truth: Any) -> Markup:
    if isinstance(given, Embedding):
        return Markup()
    right = given.value == truth
    told = [tag("small", f"{name}: "), say("said"), " ", tag("span", _told(given.value), class_="fine" if right else "wrong")]
    if isinstance(given, Number):
        told[3] = tag("span", _value(given.value))
    if truth is not None and not right:
        told += [" · ", say("truth"), " ", tag("b", _told(truth))]
    return tag("div", joined(*told), _scores(given))


def _told(value: Any) -> Inside:
    """A value as text on the page; no labels, and a text without letters, are said to be none."""
    return say("nothing") if isinstance(value, tuple | str) and not value else clipped(_value(value))  # pyright: ignore[reportUnknownArgumentType]


def _value(value: Any) -> str:
    if isinstance(value, float):
        return short(value)
    return ", ".join(value) if isinstance(value, tuple) else str(value)


def _scores(given: Answer) -> Markup:
    match given:
        case Category() | Labels():
            top = sorted(given.scores.items(), key=lambda entry: -entry[1])[:LIKELIEST]
            return tag("div", tag("small", ", ".join(f"{clipped(label, 40)} {score:.3f}" for label, score in top)))
        case Text():
            return tag("div", tag("small", f"log p {given.score:.3f}"))
        case _:
            return Markup()
