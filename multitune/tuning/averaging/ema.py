"""A running average of the weights, an optimizer step at a time."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import torch
from torch import Tensor

from multitune.tuning.scope import Entry, Scope


class Ema:
    """The average of each tensor that moves; until it moves, and before `start`, its average is the tensor itself.

    The k-th step of a tensor that takes part leaves the share `decay` of its average; with `warmup` at most (1 + k) / (10 + k), so that
    the first values are soon forgotten. Buffers are not averaged: they are those of the step.
    Source: Polyak and Juditsky 1992; the warmup as in TensorFlow's ExponentialMovingAverage.
    """

    def __init__(self, scope: Scope, *, decay: float, start: int, warmup: bool) -> None:
        self._entries, self._clock = scope.entries, scope.clock
        self._decay, self._start, self._warmup = decay, start, warmup
        self.averages = {entry.name: entry.parameter.detach().clone() for entry in scope.entries}

    def update(self, done: int) -> None:
        """Take in the weights after `done` optimizer steps."""
        groups: dict[float, list[Entry]] = {}
        for entry in self._entries:
            groups.setdefault(self._left(entry, done), []).append(entry)
        for left, entries in groups.items():
            averages = [self.averages[entry.name] for entry in entries]
            weights = [entry.parameter.detach() for entry in entries]
            if left == 0:
                for average, weight in zip(averages, weights, strict=True):
                    average.copy_(weight)
            else:
                torch._foreach_lerp_(averages, weights, 1 - left)  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage]

    def wear(self) -> None:
        """Put the averages in the weights' place."""
        for entry in self._entries:
            entry.parameter.data.copy_(self.averages[entry.name])

    @contextmanager
    def worn(self) -> Generator[None]:
        """The averages in the weights' place inside; the weights to the bit afterwards."""
        own: list[Tensor] = [entry.parameter.detach().clone() for entry in self._entries]
        self.wear()
        try:
            yield
        finally:
            for entry, weights in zip(self._entries, own, strict=True):
                entry.parameter.data.copy_(weights)

    def _left(self, entry: Entry, done: int) -> float:
        """The share that stays of the average of a tensor."""
        steps = done - max(self._start, self._clock.began(min(span.start for span in entry.spans)))
        if steps <= 0:
            return 0.0
        return min(self._decay, (1 + steps) / (10 + steps)) if self._warmup else self._decay
