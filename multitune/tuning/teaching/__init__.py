"""What a teacher said of the rows of a run, joined to their batches by id.

The table holds one row for each row of the train split that the teacher could read; it is made once, before the first step, kept in
the run's folder and read back from there, so a run that goes on has the same numbers. The teacher never sees an augmented row.

    teacher/table.safetensors   teacher/teacher.json (what it rests on, the rows' ids in order, sha256 of the table)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Protocol

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from multitune.core import store
from multitune.core.errors import RunError
from multitune.core.finding import Finding
from multitune.core.protocols import Batch
from multitune.core.rundir import RunDir, write_atomic
from multitune.data.loader import StepBatches
from multitune.data.workers import changed

FOLDER, TABLE, FACTS = "teacher", "table.safetensors", "teacher/teacher.json"
THERE = "there"


class Steps(Protocol):
    """What gives the steps of a run: the loader."""

    def steps(self, start: int, stop: int) -> Iterator[StepBatches]: ...


@dataclass(frozen=True)
class Table:
    """ids: of its rows, in order. columns: `answer/<name>` and `feature/<part>`, (rows, ...).

    counts: figures of how it came about (`teacher/hits`, `teacher/asked`); findings: what went wrong with keeping it for others.
    """

    ids: tuple[str, ...]
    columns: Mapping[str, Tensor]
    counts: Mapping[str, float] = field(default_factory=dict[str, float])
    findings: tuple[Finding, ...] = ()

    def joined(self, batch: Batch) -> Batch:
        """The batch with what the teacher said of its rows; zeros, and `there` false, of those that the teacher could not read."""
        places = self._places
        rows = [places.get(name, -1) for name in batch.ids]
        there = torch.tensor([row >= 0 for row in rows], dtype=torch.bool)
        index = torch.tensor([max(row, 0) for row in rows], dtype=torch.int64)
        picked = {name: _blank(column[index], ~there) for name, column in self.columns.items()}
        return replace(batch, teacher={**picked, THERE: there})

    @cached_property
    def _places(self) -> Mapping[str, int]:
        return {name: place for place, name in enumerate(self.ids)}


@dataclass(frozen=True)
class Taught:
    """The steps of a loader, each batch with what the teacher said of it."""

    loader: Steps
    table: Table

    def steps(self, start: int, stop: int) -> Iterator[StepBatches]:
        """Steps `start` up to, not including, `stop`."""
        for step in self.loader.steps(start, stop):
            yield replace(step, micro=changed(step.micro, self.table.joined))


def kept(run: RunDir, rests_on: str) -> Table | None:
    """The table in a run's folder, verified; None where there is none yet.

    rests_on: a hash of the teacher, of the rows and of what is asked. Raises: RunError for one that is not what was written.
    """
    facts = run.read_json(FACTS)
    path = run.folder / FOLDER / TABLE
    if facts is None or not path.is_file():
        return None
    if facts["rests_on"] != rests_on:
        found = "was made by another teacher, or of other rows."
        raise RunError(str(run.folder / FACTS), found, "Undo the change, or start anew with --fresh.")
    if store.hash_file(path) != facts["sha256"]:
        raise RunError(str(path), "is not what was written.", "Remove it: it is made again, and must be the same.")
    return _read(path, facts["ids"])


def keep(run: RunDir, table: Table, rests_on: str) -> Table:
    """Write a table and read it back; one that was made before must have been the same.

    Raises: RunError where it was not; Fault if the disk does not take it.
    """
    path = run.folder / FOLDER / TABLE
    before = run.read_json(FACTS)
    write_atomic(path, save({name: column.contiguous() for name, column in table.columns.items()}))
    facts = {"rests_on": rests_on, "sha256": store.hash_file(path), "ids": list(table.ids)}
    if before is not None and before != facts:
        path.unlink()
        found = "the teacher says something else of the same rows than when the run began."
        raise RunError(str(path), found, "Go on where it began (device, libraries), or start anew with --fresh.")
    run.write_json(FACTS, facts)
    return _read(path, table.ids)


def _read(path: Path, ids: Sequence[str]) -> Table:
    try:
        return Table(tuple(ids), load_file(path))
    except (OSError, SafetensorError) as error:
        raise RunError(str(path), f"cannot be read ({str(error)[:80]}).", "Remove it: it is made again.") from None


def _blank(rows: Tensor, away: Tensor) -> Tensor:
    return rows.masked_fill(away.view(-1, *[1] * (rows.ndim - 1)), 0.0)
