"""What happened, one value a line: `events.jsonl`."""

from __future__ import annotations

import functools
import json
import math
import os
from collections.abc import Mapping
from io import TextIOWrapper
from pathlib import Path
from typing import Any

from multitune.core.errors import writing
from multitune.core.rundir import write_atomic

FORM = 1


class Events:
    """Appends `{step, seconds, name, value}` lines; what a stopped run wrote after step `after` is dropped first.

    step: optimizer steps done. seconds: of training, over all starts of the run.
    """

    def __init__(self, path: Path, *, after: int) -> None:
        kept = [event for event in read(path) if event["step"] <= after] if path.is_file() else []
        lines = [json.dumps({"form": FORM}), *(_line(event) for event in kept)]
        self._path = write_atomic(path, ("\n".join(lines) + "\n").encode("utf-8"))
        self._stream: TextIOWrapper = path.open("a", encoding="utf-8")

    def write(self, values: Mapping[str, float], *, step: int, seconds: float) -> None:
        """One line for each value."""
        at = f'{{"step": {step}, "seconds": {round(seconds, 3)!r}, "name": '
        with writing(self._path):
            self._stream.write("".join([f'{at}{_quoted(name)}, "value": {_number(value)}}}\n' for name, value in values.items()]))

    def sync(self) -> None:
        """Put everything written so far on the disk."""
        with writing(self._path):
            self._stream.flush()
            os.fsync(self._stream.fileno())

    def close(self) -> None:
        """Write out what is buffered and close the file."""
        with writing(self._path):
            self._stream.close()


def read(path: Path) -> list[dict[str, Any]]:
    """The events of a file in order, up to the first line that was torn."""
    events: list[dict[str, Any]] = []
    for line in path.read_bytes().decode("utf-8", errors="replace").split("\n")[1:]:
        try:
            event = json.loads(line)
        except ValueError:
            break
        if not isinstance(event, dict) or set(event) != {"step", "seconds", "name", "value"}:
            break
        events.append(event)
    return events


@functools.cache
def _quoted(name: str) -> str:
    return json.dumps(name, ensure_ascii=False)


def _number(value: float) -> str:
    """A number as `json` writes it.

    Raises: ValueError for one that is not finite.
    """
    return repr(value) if type(value) is float and math.isfinite(value) else json.dumps(value, allow_nan=False)


def _line(event: Mapping[str, Any]) -> str:
    return json.dumps(event, ensure_ascii=False, allow_nan=False)
