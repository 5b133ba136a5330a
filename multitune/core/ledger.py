"""The ledger: what became of every row that did not simply pass.

Exceptions are kept, the rest is counted. Segments are sealed with each checkpoint and never change; a run that resumes drops
what was not sealed and meets it again. Joined, the records are hashed over canonical rows without times: two runs that treated
the rows alike have the same hash.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

from multitune.core.errors import Fault, writing
from multitune.core.store import canonical

Fate = Literal["quarantined", "dropped", "masked", "truncated", "repaired"]

SHOWN = 3


@dataclass(frozen=True, order=True)
class Record:
    """One exception: what became of a row's part, and why. `part` is empty where the whole row is meant."""

    id: str
    fate: Fate
    part: str
    cause: str
    source: str = ""


class Ledger:
    """Collects records; the same record twice counts once. `folder` empty keeps it in memory only."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self._sealed: set[Record] = set()
        self._open: set[Record] = set()
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            self._sealed = set(_read(folder))

    def record(self, *, id: str, fate: Fate, cause: str, part: str = "", source: str = "") -> bool:
        """Take one exception down; gives whether it is new."""
        record = Record(id=id, fate=fate, part=part, cause=cause, source=source)
        if record in self._sealed or record in self._open:
            return False
        self._open.add(record)
        return True

    def records(self) -> list[Record]:
        """All records, sorted."""
        return sorted(self._sealed | self._open)

    def counts(self) -> dict[str, int]:
        """Rows by fate."""
        return dict(sorted(Counter(record.fate for record in {(r.id, r.fate): r for r in self.records()}.values()).items()))

    def lost(self) -> set[str]:
        """Ids of quarantined rows."""
        return {record.id for record in self._sealed | self._open if record.fate == "quarantined"}

    def seal(self, label: str) -> None:
        """Write the open records as one segment that never changes again; nothing is written where there are none.

        Where a segment of that label is there (sealed before a checkpoint that was never finished), this one gets a number.
        """
        if self.folder is None or not self._open:
            return
        final, number = self.folder / f"segment-{label}.jsonl", 2
        while final.exists():
            final, number = self.folder / f"segment-{label}-{number}.jsonl", number + 1
        _write(final, sorted(self._open))
        self._sealed |= self._open
        self._open = set()

    @contextmanager
    def guarded(self) -> Generator[None]:
        """Where the block ends by an error, what is not sealed yet stands in `stopped.jsonl`, to be read by people.

        No ledger reads it back: a run that goes on meets those rows again, mended or not.
        """
        told = None if self.folder is None else self.folder / "stopped.jsonl"
        try:
            yield
        except BaseException:
            if told is not None and self._open:
                with suppress(Fault):  # the error itself is what is to be told
                    _write(told, sorted(self._open))
            raise
        if told is not None:
            told.unlink(missing_ok=True)

    def write(self, path: Path) -> Path:
        """All records as one file, in place of what was there; not a segment, so no ledger reads it back."""
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        _write(path, self.records())
        return path

    def hash(self) -> str:
        """The sha256 (hex) over all records in canonical order."""
        return hashlib.sha256(_text(self.records()).encode()).hexdigest()


def over_budget(lost: int, *, rows: int, share: float) -> bool:
    """Whether more than `share` of the rows are lost. One row alone never is too many, but where the share is 0: none may be."""
    return lost > share * rows and (lost > 1 or share == 0)


def shown(records: Iterable[Record]) -> str:
    """The first three records as `id, part: cause`."""
    return "; ".join(f"{record.id}, {record.part or 'the row'}: {record.cause}" for record in islice(records, SHOWN))


def _text(records: Iterable[Record]) -> str:
    return "".join(canonical(asdict(record)) + "\n" for record in records)


def _write(path: Path, records: Iterable[Record]) -> None:
    draft = path.with_suffix(".tmp")
    with writing(path):
        with draft.open("w", encoding="utf-8") as stream:
            stream.write(_text(records))
            stream.flush()
            os.fsync(stream.fileno())
        draft.replace(path)


def _read(folder: Path) -> Iterator[Record]:
    for path in sorted(folder.glob("segment-*.jsonl")):
        for line in path.read_text("utf-8").splitlines():
            yield Record(**json.loads(line))
