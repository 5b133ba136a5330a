"""The order of rows: a pure function of the seed and the epoch, so that a step can be made anywhere, any time, alike."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from multitune.core.randomness import generator


@dataclass(frozen=True)
class Task:
    """One micro-batch to be made. micro: its number in the step over all ranks. places: places in the examples."""

    step: int
    epoch: int
    micro: int
    places: tuple[int, ...]


@dataclass(frozen=True)
class Order:
    """What decides the order: rows, seed, batches; `weights` and `labels` (of a balanced answer) by place, or None.

    An epoch takes every row once (with weights: the whole part of its weight times, and a share of the rows once more, drawn
    anew each epoch; balanced: each class equally often). Its last batch is short.
    """

    num_rows: int
    seed: int
    batch_size: int
    micro_batch: int
    weights: np.ndarray | None = None
    labels: Sequence[str | None] | None = None

    def epoch(self, epoch: int) -> np.ndarray:
        """The places of an epoch in order; every epoch has the same length."""
        rng = generator("order", self.seed, epoch)
        places = np.arange(self.num_rows)
        if self.weights is not None and np.any(self.weights != 1.0):
            places = _weighted(places, self.weights, rng)
        if self.labels is not None:
            places = _balanced(places, self.labels, rng)
        return places[rng.permutation(len(places))]

    @property
    def rows_per_epoch(self) -> int:
        """Rows drawn in an epoch."""
        return len(self.epoch(0))

    def tasks(self, start: int, stop: int, *, rank: int = 0, world: int = 1) -> Iterator[tuple[int, int, list[Task]]]:
        """For each step: its number, its epoch and this rank's micro-batches; rank r takes the numbers r, r + world, ..."""
        per_epoch = math.ceil(self.rows_per_epoch / self.batch_size)
        order, current = np.empty(0, dtype=np.int64), -1
        for step in range(start, stop):
            epoch, number = divmod(step, per_epoch)
            if epoch != current:
                order, current = self.epoch(epoch), epoch
            rows = order[number * self.batch_size : (number + 1) * self.batch_size].tolist()
            micros = range(0, len(rows), self.micro_batch)
            tasks = [Task(step, epoch, i, tuple(rows[at : at + self.micro_batch])) for i, at in enumerate(micros)]
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
