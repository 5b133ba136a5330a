"""Plain data written as YAML 1.2 core on one line, so that `parse_yaml` gives it back."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

_PLAIN = re.compile(r"(?:[^\W\d_][\w./-]*|\d+(?:\.\d+)?%|/[\w./-]+|\.{1,2}/[\w./-]*)")
_WORDS = {"null", "true", "false", "none", "yes", "no", "on", "off", "y", "n"}  # some older readers take the last ones for booleans
_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t"}


def flow(value: Any) -> str:
    """A value as YAML in flow form: `{name: lora, rank: 8}`; texts that could be read as something else are quoted.

    value: plain data: None, booleans, numbers, texts, lists and mappings of them.
    """
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{flow(str(name))}: {flow(inner)}" for name, inner in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(flow(inner) for inner in value) + "]"
    if isinstance(value, str):
        return _text(value)
    return "null" if value is None else json.dumps(value, allow_nan=False)


def _text(value: str) -> str:
    if _PLAIN.fullmatch(value) and value.isprintable() and value.lower() not in _WORDS:
        return value
    return '"' + "".join(map(_escaped, value)) + '"'


def _escaped(character: str) -> str:
    if character in _ESCAPES:
        return _ESCAPES[character]
    if character == " " or character.isprintable():
        return character
    code = ord(character)
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
