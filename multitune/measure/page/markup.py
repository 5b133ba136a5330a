"""HTML out of plain values: whatever is not markup already is escaped on its way in."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import TypeAlias

VOID = ("meta", "br", "img", "input", "hr", "col")


class Markup(str):
    """Text that is HTML already; everything else is text, and shown as it is."""

    __slots__ = ()


Inside: TypeAlias = "str | Iterable[Inside]"  # a Markup is a str too


def tag(name: str, /, *inside: Inside, **attributes: str | float | bool) -> Markup:
    """An element. A trailing underscore of an attribute's name falls away, others become hyphens; False leaves the attribute out."""
    told = "".join(_attribute(key, value) for key, value in attributes.items() if value is not False)
    return Markup(f"<{name}{told}>" if name in VOID else f"<{name}{told}>{joined(*inside)}</{name}>")


def joined(*inside: Inside) -> Markup:
    """Pieces one after the other."""
    return Markup("".join(map(_plain, inside)))


def _plain(inside: Inside) -> str:
    if isinstance(inside, Markup):
        return inside
    return escape(inside, quote=False) if isinstance(inside, str) else joined(*inside)


def _attribute(name: str, value: str | float | bool) -> str:
    key = name.rstrip("_").replace("_", "-")
    return f" {key}" if value is True else f' {key}="{escape(str(value))}"'
