"""Processes that make micro-batches: the same bits, whichever makes them.

Other processes are spawned, never forked, and take tasks in turn over pipes of their own. One that is killed is replaced once,
the order kept; one that stops answering is ended and reported. None outlives its parent: a closed pipe ends it. Batches travel
as bytes, not as shared memory: that would have to be fetched from a process that may have stopped, and a full /dev/shm kills.
"""

from __future__ import annotations

import multiprocessing
import queue
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch

from multitune.core import catalog
from multitune.core.errors import Fault, HungError
from multitune.core.protocols import Batch
from multitune.data.order import Task
from multitune.data.workers.memo import Memo
from multitune.data.workers.work import Made, Work

STARTUP_SECONDS = 180.0  # for imports, on a machine that is busy


class Pool:
    """Processes that make tasks in turn. `window` tasks are under way at a time in each."""

    def __init__(self, work: Work, *, workers: int, window: int, timeout: float) -> None:
        self._work, self._workers, self._window, self._timeout = work, workers, window, timeout
        self._lanes: list[_Lane] = []

    def run(self, tasks: Callable[[], Iterator[Task]]) -> Iterator[Made]:
        """What was made of each task, in order. `tasks` gives the same tasks each time it is called.

        Raises: HungError for a process that does not answer in time; Fault for one that dies twice or of an error of ours.
        """
        done, lives = 0, 2
        while True:
            try:
                self._start()
                for made in self._turns(islice(tasks(), done, None)):
                    done += 1
                    yield made
                return
            except _Died as error:
                lives -= 1
                if not lives or (error.code is not None and error.code > 0):
                    raise Fault(_died_text(error.code)) from None
            finally:
                self.stop()

    def _turns(self, tasks: Iterator[Task]) -> Iterator[Made]:
        waiting: deque[int] = deque()
        for number, task in enumerate(tasks):
            if len(waiting) == self._workers * self._window:
                yield self._received(waiting.popleft())
            self._send(number % self._workers, task)
            waiting.append(number % self._workers)
        while waiting:
            yield self._received(waiting.popleft())

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        share = replace(self._work, memo_bytes=self._work.memo_bytes // self._workers)
        for _ in range(self._workers):
            ours, theirs = context.Pipe()
            arguments = (theirs, catalog.plugin_files(), torch.get_num_threads())
            process = context.Process(target=_serve, args=arguments, daemon=True, name="multitune-loader")
            process.start()
            theirs.close()
            self._lanes.append(_Lane(process, ours))
        for number in range(self._workers):
            self._send(number, share)

    def _send(self, number: int, what: Task | Work) -> None:
        try:
            self._lanes[number].pipe.send(what)
        except OSError:
            raise _Died(self._lanes[number].code()) from None

    def _received(self, number: int) -> Made:
        lane = self._lanes[number]
        if not lane.ready:
            lane.ready = self._answer(lane, max(self._timeout, STARTUP_SECONDS)) is not None
        packed = self._answer(lane, self._timeout)
        return replace(packed, batch=_converted(packed.batch, _got))

    def _answer(self, lane: _Lane, timeout: float) -> Made:
        try:
            packed = lane.answers.get(timeout=timeout)
        except queue.Empty:
            raise HungError(f"loader: a worker process did not answer for {timeout:g} seconds and was ended; try again") from None
        if packed is None:
            raise _Died(lane.code())
        return packed

    def stop(self) -> None:
        """End all processes: they keep nothing that is needed."""
        for lane in self._lanes:
            lane.process.kill()
        for lane in self._lanes:
            lane.process.join()
            lane.process.close()
            lane.reader.join()
            lane.pipe.close()
        self._lanes = []


class _Lane:
    """A process, its pipe, and the thread that empties the pipe: an answer cut short must not hold up who waits for it."""

    def __init__(self, process: Any, pipe: Connection) -> None:
        self.process, self.pipe, self.ready = process, pipe, False
        self.answers: queue.SimpleQueue[Made | None] = queue.SimpleQueue()
        self.reader = threading.Thread(target=self._read, daemon=True, name="multitune-loader")
        self.reader.start()

    def _read(self) -> None:
        while True:
            try:
                self.answers.put(self.pipe.recv())
            except (EOFError, OSError):  # the process is gone, perhaps in the middle of a word
                self.answers.put(None)
                return

    def code(self) -> int | None:
        """How the process ended."""
        self.process.join(1.0)
        return self.process.exitcode


@dataclass(frozen=True)
class _Repeated:
    """One number in all places of a tensor: what a batch holds where its features are stored. It travels as that number."""

    value: np.ndarray
    shape: tuple[int, ...]


def _sent(tensor: torch.Tensor) -> Any:
    array = tensor.numpy()
    repeats = array.size > 1 and not any(array.strides)
    return _Repeated(np.array(array.flat[0], array.dtype), array.shape) if repeats else array


def _got(given: Any) -> torch.Tensor:
    return torch.from_numpy(given.value).expand(given.shape) if isinstance(given, _Repeated) else torch.from_numpy(given)


def _converted(batch: Batch | None, convert: Callable[[Any], Any]) -> Batch | None:
    """The batch with each tensor (or array) converted."""
    if batch is None:
        return None
    inputs = {part: {name: convert(tensor) for name, tensor in tensors.items()} for part, tensors in batch.inputs.items()}
    answers = {name: convert(tensor) for name, tensor in batch.answers.items()}
    return replace(batch, inputs=inputs, answers=answers, presence={name: convert(tensor) for name, tensor in batch.presence.items()})


class _Died(Exception):
    def __init__(self, code: int | None) -> None:
        self.code = code
        super().__init__(code)


def _died_text(code: int | None) -> str:
    how = f"by signal {signal.Signals(-code).name}" if code is not None and code < 0 else f"with code {code}"
    hint = (
        'its error stands above; a script that starts workers needs `if __name__ == "__main__":`'
        if code is not None and code > 0
        else "it may have run out of memory"
    )
    return f"loader: a worker process ended {how}; {hint}; train.workers=0 needs none"


def _serve(pipe: Connection, plugins: tuple[Path, ...], threads: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    torch.set_num_threads(threads)  # as in the parent: sums over threads decide last bits
    for path in plugins:
        catalog.register_file(path)
    work: Work = pipe.recv()  # only now: what it holds may be of the plug-ins
    memo = Memo(work.memo_bytes)
    pipe.send(Made(None))  # the imports are done: from here on the caller may count the seconds
    while True:
        try:
            made = work.make(pipe.recv(), memo)
            pipe.send(replace(made, batch=_converted(made.batch, _sent)))
        except (EOFError, OSError):
            return
