"""Ctrl-C and SIGTERM: asked once, the run ends after the step or within the evaluation in hand; asked twice, at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType, TracebackType


class Interrupted(BaseException):
    """A signal came within `Asked.at_once`."""


class Asked:
    """Remembers which signal asked for an end; the handlers are put back afterwards. Only in the main thread."""

    def __init__(self) -> None:
        self.number = 0
        self._urgent = False
        self._before: dict[int, signal.Handlers | int | None] = {}

    def __enter__(self) -> Asked:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._remember)  # type: ignore[assignment]
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._put_back()

    @contextmanager
    def at_once(self) -> Generator[None]:
        """For work that may be left at any moment and done again.

        Raises: Interrupted, within it, as soon as a signal asks for an end, or has asked before.
        """
        self._urgent = True
        try:
            if self.number:
                raise Interrupted
            yield
        finally:
            self._urgent = False

    def name(self, number: int) -> str:
        """What people call a signal."""
        return "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name

    def _remember(self, number: int, _: FrameType | None) -> None:
        self.number = number
        self._put_back()
        if self._urgent:
            raise Interrupted

    def _put_back(self) -> None:
        for number, handler in self._before.items():
            if handler is not None:
                signal.signal(number, handler)
        self._before = {}
