"""Which rows go into a batch together, once the order of an epoch is drawn: those of like length within a window."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from multitune.core.randomness import generator


@dataclass(frozen=True)
class Grouping:
    """Brings rows of like length together.

    padded: int32 (rows, streams), the padded tokens of each row by its place. keys: int64 (rows,), what rows are sorted by. window: batches
    within which a row may move; 1 sorts the rows of each batch and moves none to another. budget: padded tokens of a batch, all streams
    together; 0: batches of a fixed number of rows.
    """

    padded: np.ndarray
    keys: np.ndarray
    window: int
    budget: int = 0

    @property
    def tight(self) -> bool:
        """Batches are padded to their longest row and no further; those of a budget in the steps in which it was counted."""
        return not self.budget

    def batches(self, order: np.ndarray, *, batch_size: int, seed: int, epoch: int) -> list[np.ndarray]:
        """The batches of an epoch; order: its places, shuffled. Every place is in one of them, as often as in the order.

        With a fixed number of rows, the last batch of the epoch holds those that it would hold without grouping, and so may be short.
        """
        if self.budget:
            windows = enumerate(self._windows(order, self._rows_in_window()))
            return [batch for number, rows in windows for batch in _shuffled(self._filled(rows), seed, epoch, number)]
        whole = len(order) // batch_size * batch_size
        made: list[np.ndarray] = []
        for number, rows in enumerate(self._windows(order[:whole], self.window * batch_size)):
            made += _shuffled(list(self._sorted(rows).reshape(-1, batch_size)), seed, epoch, number)
        return made + ([self._sorted(order[whole:])] if whole < len(order) else [])

    def _windows(self, order: np.ndarray, rows: int) -> Iterator[np.ndarray]:
        return (order[start : start + rows] for start in range(0, len(order), rows))

    def _rows_in_window(self) -> int:
        """Rows of `window` batches of the budget, were all rows of the mean length."""
        mean = max(1.0, float(self.padded.sum(1, dtype=np.int64).mean()))
        return self.window * max(1, int(self.budget / mean))

    def _sorted(self, rows: np.ndarray) -> np.ndarray:
        return rows[np.argsort(self.keys[rows], kind="stable")]

    def _filled(self, rows: np.ndarray) -> list[np.ndarray]:
        """The rows of a window in batches as large as the budget allows, shortest rows first."""
        rows, made, start = self._sorted(rows), list[np.ndarray](), 0
        while start < len(rows):
            first = max(1, int(self.padded[rows[start]].sum()))
            reach = rows[start : start + max(1, self.budget // first)]
            longest = np.maximum.accumulate(self.padded[reach].astype(np.int64), axis=0).sum(1)
            taken = max(1, int(np.searchsorted(longest * np.arange(1, len(reach) + 1), self.budget, side="right")))
            made.append(reach[:taken])
            start += taken
        return made


def _shuffled(batches: list[np.ndarray], seed: int, epoch: int, window: int) -> list[np.ndarray]:
    return [batches[place] for place in generator("bucket", seed, epoch, window).permutation(len(batches)).tolist()]
