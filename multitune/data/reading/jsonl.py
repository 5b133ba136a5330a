"""JSON lines: one object a line; strings as they are, numbers as they were written, null absent, the rest as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from multitune.core.errors import DataError
from multitune.data.reading.rows import lines


class _Number(str):
    """A JSON number as it was written."""


def rows(path: Path, stream: BinaryIO) -> Iterator[Mapping[str, str | None]]:
    """The objects of a file; blank lines are passed over.

    Raises: DataError naming the line that is no JSON object, has a key twice, or holds NaN or Infinity.
    """
    decoder = json.JSONDecoder(object_pairs_hook=_object, parse_int=_Number, parse_float=_Number, parse_constant=_no_constant)
    for number, line in enumerate(lines(path, stream), 1):
        text = line.strip()
        if not text:
            continue
        try:
            found = decoder.decode(text)
            if not isinstance(found, dict):
                raise json.JSONDecodeError("is no object {...}", text, 0)
            yield {str(name): None if value is None else _cell(value) for name, value in found.items()}
        except RecursionError:
            raise DataError(f"{path}, line {number}", "is nested too deep.", "Flatten it.") from None
        except ValueError as error:
            problem = f"{error.msg} at character {error.pos + 1}" if isinstance(error, json.JSONDecodeError) else str(error)
            raise DataError(f"{path}, line {number}", f"{problem}.", "Each line is one JSON object.") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))
        raise ValueError(f'has the key "{twice}" twice')
    return made


def _no_constant(text: str) -> Any:
    raise ValueError(f"holds {text}, which is no JSON number")


def _cell(value: Any) -> str:
    """The text of a JSON value: strings and numbers as written, the rest as JSON. A lone surrogate, which no file can hold,
    becomes NUL, which `align` takes out and records."""
    if isinstance(value, str):
        return str(value) if value.isascii() or not _has_surrogate(value) else "".join("\0" if _is_surrogate(c) else c for c in value)
    return _json(value)


def _has_surrogate(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return True
    return False


def _is_surrogate(character: str) -> bool:
    return "\ud800" <= character <= "\udfff"


def _json(value: Any) -> str:
    if isinstance(value, _Number):
        return str(value)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_json(str(k))}: {_json(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_json(v) for v in value) + "]"
    if isinstance(value, str):
        return json.dumps(_cell(value), ensure_ascii=False)
    return "null" if value is None else "true" if value is True else "false"
