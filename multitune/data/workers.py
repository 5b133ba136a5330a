"""Micro-batches made in this process or in others: the same bits, whichever makes them.

Other processes are spawned, never forked, and take tasks in turn over pipes of their own. One that is killed is replaced once,
the order kept; one that stops answering is ended and reported. None outlives its parent: a closed pipe ends it. Batches travel
as bytes, not as shared memory: that would have to be fetched from a process that may have stopped, and a full /dev/shm kills.
"""

from __future__ import annotations

import functools
import multiprocessing
import queue
import signal
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch

from multitune.core import catalog
from multitune.core.errors import Fault, HungError, UserError
from multitune.core.ledger import Fate
from multitune.core.protocols import Augmentation, Batch, Media, Part, Preparer, Sample
from multitune.core.randomness import generator
from multitune.data.batch import Kept, Ready, Repeats, contents
from multitune.data.decode import BadPart, View, opened, read_as
from multitune.data.manifest import Manifest
from multitune.data.order import Task
from multitune.data.split import Examples

STARTUP_SECONDS = 180.0  # for imports, on a machine that is busy


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
        strides = value.strides if isinstance(value, np.ndarray) else value.stride()
        return 128 + (value.nbytes if any(strides) else 0)
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
    """All that a process must know to make any micro-batch; picklable.

    augment: part -> what is done to it, in order. compared: parts of which a batch says which rows hold the same. views: how many fixed
    views an augmented row has, taken in turn; 0: another one in each epoch. told: part -> a hash of what is done to it. held: remembers
    prepared rows, where they are small and the same in each epoch (of each view).
    """

    examples: Examples
    preparer: Preparer
    seed: int
    augment: Mapping[str, tuple[Augmentation, ...]]
    memo_bytes: int
    compared: tuple[str, ...] = ()
    views: int = 0
    told: Mapping[str, str] = field(default_factory=dict)
    held: Memo | None = None

    @cached_property
    def kept(self) -> Kept | None:
        """Rows that were prepared before; None where a row may be another when it is read again: augmented, or not of a table."""
        tables = all(isinstance(rows, Manifest) for entry in self.examples.mixed.entries for rows in entry.all_rows)
        repeats = tables and not self.augment and isinstance(self.preparer, Repeats)
        return Kept(_size) if repeats and self.memo_bytes else None

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "kept"}

    def make(self, task: Task, memo: Memo) -> Made:
        """The batch of a task; a row that cannot be read is left out and noted."""
        rows: list[Mapping[str, Any]] = []
        samples: list[Sample] = []
        notes: list[Note] = []
        try:
            for place in task.places:
                made = self._row(place, task.epoch, memo, notes)
                if made is not None:
                    samples.append(made[0])
                    rows.append(made[1])
            return Made(joined(self.preparer, rows, samples, self.compared) if rows else None, tuple(notes))
        except UserError as error:
            return Made(None, tuple(notes), error)

    def _row(self, place: int, epoch: int, memo: Memo, notes: list[Note]) -> tuple[Sample, Mapping[str, Any]] | None:
        """The sample in a place and its row; None, and a note, where it cannot be read. What left a note is not remembered."""
        plain = self.kept if self.held is None else None
        if plain is not None and (known := plain.get(place)) is not None:
            return known.sample, known.row
        told: list[Note] = []

        def make() -> tuple[Sample, Mapping[str, Any]] | None:
            sample = read_sample(self.examples, place, told)
            row = None if sample is None else prepared(sample, self.preparer, memo, told, lambda given: self.augmented(given, epoch, memo))
            return None if sample is None or row is None else (sample, row)

        if self.held is None or (self.augment and not self.views):
            made = make()
        else:
            made = self.held.get(f"{place}|{self.view(epoch) if self.views else 0}", make)
            if made is None or any(made[1].get("truncated", {}).values()):
                told.clear()
                made = make()
        notes += told
        if plain is not None and made is not None and not told:
            plain.put(place, Ready(made[0], made[1]))
        return made

    def augmented(self, sample: Sample, epoch: int, memo: Memo) -> Sample:
        """The sample with its augmented parts decoded and changed; the generator depends on what the row is, not on who asks.

        Of a fixed number of views a part is not changed yet: that is done when it is opened.
        """
        parts = dict(sample.parts)
        for name, steps in self.augment.items():
            if (part := parts.get(name)) is None or not steps:
                continue
            view = self.view(epoch)
            make = functools.partial(self._changed, part, name, sample.id, view, memo)
            told = f"{self.seed}|{view}|{name}|{self.told.get(name, '')}|{sample.id}"
            parts[name] = replace(part, value=View(part, told, make) if self.views else make())
        return replace(sample, parts=parts)

    def view(self, epoch: int) -> int:
        """Which view of an augmented row an epoch sees."""
        return epoch % self.views if self.views else epoch

    def _changed(self, part: Part, name: str, id: str, view: int, memo: Memo) -> Any:
        value = _decoded(part, memo)
        rng = generator("augment", self.seed, view, id, name)
        for step in self.augment[name]:
            value = step.apply(value, rng)
        return value


def joined(preparer: Preparer, rows: Sequence[Mapping[str, Any]], samples: Sequence[Sample], compared: Sequence[str]) -> Batch:
    """Prepared rows as a batch, with `contents` of those parts that are compared."""
    batch = preparer.collate(rows)
    return replace(batch, contents=contents(samples, compared)) if compared else batch


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
        return memo.get(f"decoded|{read_as(part)}|{part.value.key}", lambda: opened(part).value)
    return opened(part).value


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


def single(work: Work, tasks: Sequence[Task] | Iterator[Task], memo: Memo) -> Iterator[Made]:
    """What is made of each task, in this process."""
    return (work.make(task, memo) for task in tasks)
