"""Micro-batches of prepared rows: all that a process must know to make any of them, and how one is made."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from multitune.core.errors import UserError
from multitune.core.ledger import Fate
from multitune.core.protocols import Augmentation, Batch, Media, Part, Preparer, Sample
from multitune.core.randomness import generator
from multitune.data.batch import contents
from multitune.data.decode import BadPart, View, opened, read_as
from multitune.data.manifest import Manifest
from multitune.data.order import Task
from multitune.data.split import Examples
from multitune.data.workers.memo import Kept, Memo, Ready, Repeats


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
    views an augmented row has, taken in turn; 0: another one in each epoch. told: part -> a hash of what is done to it. held: prepared rows
    are small, and the same in each epoch (of each view).
    """

    examples: Examples
    preparer: Preparer
    seed: int
    augment: Mapping[str, tuple[Augmentation, ...]]
    memo_bytes: int
    compared: tuple[str, ...] = ()
    views: int = 0
    told: Mapping[str, str] = field(default_factory=dict)
    held: bool = False

    @cached_property
    def kept(self) -> Kept | None:
        """Rows that were prepared before; None where a row may be another when it is read again: augmented, or not of a table."""
        tables = all(isinstance(rows, Manifest) for entry in self.examples.mixed.entries for rows in entry.all_rows)
        repeats = tables and not self.augment and isinstance(self.preparer, Repeats)
        fixed = self.held and not (self.augment and not self.views)
        return Kept(shared=not tables) if (repeats or fixed) and self.memo_bytes else None

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
        kept, key = self.kept, (place, self.view(epoch) if self.augment and self.views else 0)
        if kept is not None and (known := kept.get(key)) is not None:
            return known.sample, known.row
        told: list[Note] = []
        sample = read_sample(self.examples, place, told)
        row = None if sample is None else prepared(sample, self.preparer, memo, told, lambda given: self.augmented(given, epoch, memo))
        notes += told
        if sample is None or row is None:
            return None
        if kept is not None and not told:
            kept.put(key, Ready(sample, row))
        return sample, row

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


def single(work: Work, tasks: Sequence[Task] | Iterator[Task], memo: Memo) -> Iterator[Made]:
    """What is made of each task, in this process."""
    return (work.make(task, memo) for task in tasks)
