"""The order of rows: a pure function of the seed and the epoch, so that a step can be made anywhere, any time, alike."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import overload

import numpy as np

from multitune.core.randomness import generator
from multitune.data.bucketing.grouping import Grouping


@dataclass(frozen=True)
class Task:
    """One micro-batch to be made. micro: its number in the step over all ranks. places: places in the examples."""

    step: int
    epoch: int
    micro: int
    places: tuple[int, ...]


@dataclass(frozen=True)
class Slices(Sequence[np.ndarray]):
    """An order cut into batches of one size, each made when it is asked for; the last may be short."""

    order: np.ndarray
    size: int

    def __len__(self) -> int:
        return math.ceil(len(self.order) / self.size)

    @overload
    def __getitem__(self, number: int) -> np.ndarray: ...

    @overload
    def __getitem__(self, number: slice) -> Sequence[np.ndarray]: ...

    def __getitem__(self, number: int | slice) -> np.ndarray | Sequence[np.ndarray]:
        if isinstance(number, slice):
            return [self[place] for place in range(*number.indices(len(self)))]
        place = range(len(self))[number]
        return self.order[place * self.size : (place + 1) * self.size]


@dataclass(frozen=True)
class Order:
    """What decides the order: rows, seed, batches; `weights` and `labels` (of a balanced answer) by place, or None.

    An epoch takes every row once (with weights: the whole part of its weight times, and a share of the rows once more, drawn
    anew each epoch; balanced: each class equally often). Its last batch is short. grouping: brings rows of like length together; where it
    has a budget, epochs differ in their number of batches. micro_batch: 0 is a rank's share of each batch.
    """

    num_rows: int
    seed: int
    batch_size: int
    micro_batch: int
    weights: np.ndarray | None = None
    labels: Sequence[str | None] | None = None
    grouping: Grouping | None = None
    _counts: dict[int, int] = field(default_factory=dict, init=False, repr=False, compare=False)

    def epoch(self, epoch: int) -> np.ndarray:
        """The places of an epoch in order; every epoch has the same length."""
        rng = generator("order", self.seed, epoch)
        if self.labels is None and (self.weights is None or not np.any(self.weights != 1.0)):
            return rng.permutation(self.num_rows)
        places = np.arange(self.num_rows)
        if self.weights is not None and np.any(self.weights != 1.0):
            places = _weighted(places, self.weights, rng)
        if self.labels is not None:
            places = _balanced(places, self.labels, rng)
        return places[rng.permutation(len(places))]

    def batches(self, epoch: int) -> Sequence[np.ndarray]:
        """The places of an epoch, batch by batch."""
        order = self.epoch(epoch)
        if self.grouping is not None:
            return self.grouping.batches(order, batch_size=self.batch_size, seed=self.seed, epoch=epoch)
        return Slices(order, self.batch_size)

    @property
    def rows_per_epoch(self) -> int:
        """Rows drawn in an epoch."""
        return len(self.epoch(0))

    def steps_of(self, epoch: int) -> int:
        """Batches of an epoch."""
        known = epoch if self.grouping is not None and self.grouping.budget else 0
        if known not in self._counts:
            budgeted = self.grouping is not None and self.grouping.budget
            self._counts[known] = len(self.batches(known)) if budgeted else math.ceil(self.rows_per_epoch / self.batch_size)
        return self._counts[known]

    def steps_in(self, epochs: float) -> int:
        """Batches of so many epochs; of a part of an epoch, that part of its batches."""
        whole = int(epochs)
        if self.grouping is None or not self.grouping.budget:
            return round(epochs * self.steps_of(0))
        part = epochs - whole
        return sum(map(self.steps_of, range(whole))) + (round(part * self.steps_of(whole)) if part else 0)

    def place(self, step: int) -> tuple[int, int]:
        """The epoch of a step, and its number in it."""
        if self.grouping is None or not self.grouping.budget:
            return divmod(step, self.steps_of(0))
        epoch = 0
        while step >= self.steps_of(epoch):
            step -= self.steps_of(epoch)
            epoch += 1
        return epoch, step

    def steps(self, start: int, stop: int) -> Iterator[tuple[int, int, np.ndarray]]:
        """For each step: its number, its epoch and the places of its batch, over all ranks."""
        if start >= stop:
            return
        epoch, number = self.place(start)
        batches = self.batches(epoch)
        for step in range(start, stop):
            if number == len(batches):
                epoch, number = epoch + 1, 0
                batches = self.batches(epoch)
            yield step, epoch, batches[number]
            number += 1

    def tasks(self, start: int, stop: int, *, rank: int = 0, world: int = 1) -> Iterator[tuple[int, int, list[Task]]]:
        """For each step: its number, its epoch and this rank's micro-batches; rank r takes the numbers r, r + world, ..."""
        for step, epoch, places in self.steps(start, stop):
            rows = places.tolist()
            size = self.micro_batch or math.ceil(len(rows) / world)
            tasks = [Task(step, epoch, i, tuple(rows[at : at + size])) for i, at in enumerate(range(0, len(rows), size))]
            yield step, epoch, tasks[rank::world]


def _weighted(places: np.ndarray, weights: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    taken: list[np.ndarray] = []
    for weight in np.unique(weights):
        alike = places[weights == weight]
        whole = int(weight)
        extra = rng.permutation(alike)[: round((float(weight) - whole) * len(alike))]
        taken += [np.tile(alike, whole), extra]
    return np.concatenate(taken)


def _balanced(places: np.ndarray, labels: Sequence[str | None], rng: np.random.Generator) -> np.ndarray:
    """Each class as often as the others (to one row); rows without the answer stay as they are."""
    named = np.array(["" if label is None else f"={label}" for label in labels])[places]
    classes = [label for label in np.unique(named) if label]
    if not classes:
        return places
    total = int((named != "").sum())
    first = {label: place for place, label in enumerate(rng.permutation(len(classes)).tolist())}
    taken = [places[named == ""]]
    for number, label in enumerate(classes):
        alike = places[named == label]
        quota = total // len(classes) + (first[number] < total % len(classes))
        taken += [np.tile(alike, quota // len(alike)), rng.permutation(alike)[: quota % len(alike)]]
    return np.concatenate(taken)
