"""What happened, one value a line: `events.jsonl`, and the progress bar on a terminal."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from io import TextIOWrapper
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from multitune.core.errors import writing
from multitune.core.rundir import write_atomic

FORM = 1
TOLD = 3  # figures of an evaluation in a line; events.jsonl has them all


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
        with writing(self._path):
            for name, value in values.items():
                self._stream.write(_line({"step": step, "seconds": round(seconds, 3), "name": name, "value": value}) + "\n")

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


def _line(event: Mapping[str, Any]) -> str:
    return json.dumps(event, ensure_ascii=False, allow_nan=False)


class Bar:
    """A progress bar on standard error with rate and time left; where that is no terminal, a line an evaluation. Nothing on other ranks."""

    def __init__(self, *, total: int, done: int, main: bool) -> None:
        columns = (
            TextColumn("train"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[text]}"),
        )
        self._main, terminal = main, sys.stderr.isatty()
        self._lines = main and not terminal
        self._console = Console(stderr=True)
        self._progress = Progress(*columns, console=self._console, disable=not (main and terminal), transient=True)
        self._task = self._progress.add_task("train", total=total, completed=done, rate="", text="")
        self._total, self._latest = total, f"step {done} of {total}"

    def __enter__(self) -> Bar:
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._progress.stop()

    def show(self, *, step: int, rate: float, loss: float) -> None:
        """Move to `step`; rate in steps a second."""
        self._progress.update(self._task, completed=step, rate=f"{rate:.2f} steps/s", text=f"loss {loss:.4f}")
        self._latest = f"step {step} of {self._total}, loss {loss:.4f}, {rate:.2f} steps/s"

    def tell(self, figures: Mapping[str, float]) -> None:
        """Where no bar is seen: the line of the step shown last, with the figures of its evaluation."""
        if self._lines:
            shown = [f"{name} {value:.4g}" for name, value in figures.items()]
            more = [f"and {len(shown) - TOLD} more"] if len(shown) > TOLD else []
            self.say(", ".join([self._latest, *shown[:TOLD], *more]))

    def say(self, text: str) -> None:
        """A line above the bar, or by itself."""
        if self._main:
            self._console.print(text, markup=False, highlight=False, soft_wrap=True)
