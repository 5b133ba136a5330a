"""The progress bar of a run on a terminal; elsewhere a line an evaluation."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

SECONDS = 0.1  # between two steps that are shown
TOLD = 3  # figures of an evaluation in a line; events.jsonl has them all


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
        self._total, self._done = total, done
        self._latest: tuple[int, float, float] | None = None
        self._drawn = 0.0

    def __enter__(self) -> Bar:
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._progress.stop()

    def show(self, *, step: int, rate: float, loss: float) -> None:
        """Move to `step`; rate in steps a second."""
        self._latest = (step, loss, rate)
        if not self._progress.disable and (step == self._total or time.monotonic() - self._drawn >= SECONDS):
            self._drawn = time.monotonic()
            self._progress.update(self._task, completed=step, rate=f"{rate:.2f} steps/s", text=f"loss {loss:.4f}")

    def tell(self, figures: Mapping[str, float]) -> None:
        """Where no bar is seen: the line of the step shown last, with the figures of its evaluation."""
        if self._lines:
            shown = [f"{name} {value:.4g}" for name, value in figures.items()]
            more = [f"and {len(shown) - TOLD} more"] if len(shown) > TOLD else []
            self.say(", ".join([self._said(), *shown[:TOLD], *more]))

    def _said(self) -> str:
        if self._latest is None:
            return f"step {self._done} of {self._total}"
        step, loss, rate = self._latest
        return f"step {step} of {self._total}, loss {loss:.4f}, {rate:.2f} steps/s"

    def say(self, text: str) -> None:
        """A line above the bar, or by itself."""
        if self._main:
            self._console.print(text, markup=False, highlight=False, soft_wrap=True)
