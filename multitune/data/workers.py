"""Micro-batches made in this process or in others: the same bits, whichever makes them.

Other processes are spawned, never forked, and take tasks in turn over pipes of their own. One that is killed is replaced once,
the order kept; one that stops answering is ended and reported. None outlives its parent: a closed pipe ends it.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from multiprocessing.connection import Connection, wait
from typing import Any

import numpy as np
import torch

from multitune.core.errors import Fault, HungError, UserError
from multitune.core.ledger import Fate
from multitune.core.protocols import Augmentation, Batch, Media, Part, Preparer, Sample
from multitune.core.randomness import generator
from multitune.data.decode import BadPart, opened
from multitune.data.order import Task
from multitune.data.split import Examples


class Memo:
    """Remembers what was made for a key, the least lately used forgotten first, within `max_bytes`. What it gives is not to be changed."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes, self.bytes = max_bytes, 0
        self._kept: OrderedDict[str, tuple[Any, int]] = OrderedDict()

    def get(self, key: str, make: Callable[[], Any]) -> Any:
        """What is remembered for the key, else what `make` gives."""
        found = self._kept.get(key)
        if found is not None:
            self._kept.move_to_end(key)
            return found[0]
        value = make()
        size = _size(value)
        if size <= self.max_bytes:
            self._kept[key] = (value, size)
            self.bytes += size
            while self.bytes > self.max_bytes:
                self.bytes -= self._kept.popitem(last=False)[1][1]
        return value


def _size(value: Any) -> int:
    """About how many bytes a value takes."""
    if isinstance(value, str | bytes):
        return 64 + len(value)
    if isinstance(value, Mapping):
        return 128 + sum(_size(inner) for inner in value.values())
    if isinstance(value, list | tuple):
        return 64 + sum(_size(inner) for inner in value)
    if isinstance(value, np.ndarray | torch.Tensor):
        return 128 + value.nbytes
    return 64 + sum(_size(inner) for inner in vars(value).values()) if hasattr(value, "__dict__") else 64


@dataclass(frozen=True)
class Note:
    """What happened to a row while its batch was made."""

    id: str
    source: str
    fate: Fate
    part: str
    cause: str


@dataclass(frozen=True)
class Made:
    """A task done: the batch (None where no row of it could be read), what happened to rows, and an error that ends the run."""

    batch: Batch | None
    notes: tuple[Note, ...] = ()
    error: UserError | None = None


@dataclass(frozen=True)
class Work:
    """All that a process must know to make any micro-batch; picklable. augment: part -> what is done to it, in order."""

    examples: Examples
    preparer: Preparer
    seed: int
    augment: Mapping[str, tuple[Augmentation, ...]]
    memo_bytes: int

    def make(self, task: Task, memo: Memo) -> Made:
        """The batch of a task; a row that cannot be read is left out and noted."""
        rows: list[Mapping[str, Any]] = []
        notes: list[Note] = []
        try:
            for place in task.places:
                sample = read_sample(self.examples, place, notes)
                if sample is not None:
                    row = prepared(sample, self.preparer, memo, notes, lambda given: self._augmented(given, task.epoch, memo))
                    rows += [] if row is None else [row]
            return Made(self.preparer.collate(rows) if rows else None, tuple(notes))
        except UserError as error:
            return Made(None, tuple(notes), error)

    def _augmented(self, sample: Sample, epoch: int, memo: Memo) -> Sample:
        """The sample with its augmented parts decoded and changed; the generator depends on what the row is, not on who asks."""
        parts = dict(sample.parts)
        for name, steps in self.augment.items():
            if (part := parts.get(name)) is None or not steps:
                continue
            value = _decoded(part, memo)
            rng = generator("augment", self.seed, epoch, sample.id, name)
            for step in steps:
                value = step.apply(value, rng)
            parts[name] = replace(part, value=value)
        return replace(sample, parts=parts)


def read_sample(examples: Examples, place: int, notes: list[Note]) -> Sample | None:
    """The sample in a place; None, and a note, where a value cannot be its part."""
    try:
        return examples.sample(place)
    except BadPart as error:
        notes.append(Note(examples.ids[place], "", "quarantined", error.part, error.cause))
        return None


def prepared(
    sample: Sample, preparer: Preparer, memo: Memo, notes: list[Note], augment: Callable[[Sample], Sample] | None = None
) -> Mapping[str, Any] | None:
    """The row as its preparer makes it; None, and a note, where a part cannot be read."""
    ready = sample
    try:
        ready = sample if augment is None else augment(sample)
        row = preparer.prepare(ready, memo)
    except BadPart as error:
        bad = error.named(ready).named(sample)
        notes.append(Note(sample.id, sample.source, "quarantined", bad.part, bad.cause))
        return None
    for part, tokens in row.get("truncated", {}).items():
        if tokens:
            notes.append(Note(sample.id, sample.source, "truncated", part, f"{tokens} tokens did not fit"))
    return row


def _decoded(part: Part, memo: Memo) -> Any:
    if isinstance(part.value, Media):
        return memo.get(f"decoded|{part.modality}|{part.value.key}", lambda: opened(part).value)
    return opened(part).value


class Pool:
    """Processes that make tasks in turn. `window` tasks are under way at a time in each."""

    def __init__(self, work: Work, *, workers: int, window: int, timeout: float) -> None:
        self._work, self._workers, self._window, self._timeout = work, workers, window, timeout
        self._processes: list[Any] = []
        self._pipes: list[Connection] = []

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
            process = context.Process(target=_serve, args=(theirs, share, torch.get_num_threads()), daemon=True, name="multitune-loader")
            process.start()
            theirs.close()
            self._processes.append(process)
            self._pipes.append(ours)

    def _send(self, number: int, task: Task) -> None:
        try:
            self._pipes[number].send(task)
        except OSError:
            raise _Died(self._code(number)) from None

    def _received(self, number: int) -> Made:
        pipe, process = self._pipes[number], self._processes[number]
        if not wait([pipe, process.sentinel], self._timeout):
            raise HungError(f"loader: a worker process did not answer for {self._timeout:g} seconds and was ended; try again")
        try:
            if pipe.poll():
                return pipe.recv()
        except (EOFError, OSError):  # it died while what it sent was on its way
            pass
        raise _Died(self._code(number))

    def _code(self, number: int) -> int | None:
        self._processes[number].join(1.0)
        return self._processes[number].exitcode

    def stop(self) -> None:
        """End all processes: they keep nothing that is needed."""
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.join()
            process.close()
        for pipe in self._pipes:
            pipe.close()
        self._processes, self._pipes = [], []


class _Died(Exception):
    def __init__(self, code: int | None) -> None:
        self.code = code
        super().__init__(code)


def _died_text(code: int | None) -> str:
    how = f"by signal {signal.Signals(-code).name}" if code is not None and code < 0 else f"with code {code}"
    hint = (
        'its error stands above; a script that starts workers needs `if __name__ == "__main__":`'
        if code is not None and code > 0
        else "it may have run out of memory or of /dev/shm"
    )
    return f"loader: a worker process ended {how}; {hint}; train.workers=0 needs none"


def _serve(pipe: Connection, work: Work, threads: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    torch.set_num_threads(threads)  # as in the parent: sums over threads decide last bits
    memo = Memo(work.memo_bytes)
    while True:
        try:
            pipe.send(work.make(pipe.recv(), memo))
        except (EOFError, OSError):
            return


def single(work: Work, tasks: Sequence[Task] | Iterator[Task], memo: Memo) -> Iterator[Made]:
    """What is made of each task, in this process."""
    return (work.make(task, memo) for task in tasks)
