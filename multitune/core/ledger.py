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
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from multitune.core.errors import writing
from multitune.core.store import canonical

Fate = Literal["quarantined", "dropped", "masked", "truncated", "repaired"]


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
        """Write the open records as one segment that never changes again; nothing is written where there are none."""
        if self.folder is None or not self._open:
            return
        text = "".join(canonical(asdict(record)) + "\n" for record in sorted(self._open))
        final = self.folder / f"segment-{label}.jsonl"
        draft = final.with_suffix(".tmp")
        with writing(final), draft.open("w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        draft.replace(final)
        self._sealed |= self._open
        self._open = set()

    def hash(self) -> str:
        """The sha256 (hex) over all records in canonical order."""
        text = "".join(canonical(asdict(record)) + "\n" for record in self.records())
        return hashlib.sha256(text.encode()).hexdigest()


def _read(folder: Path) -> Iterator[Record]:
    for path in sorted(folder.glob("segment-*.jsonl")):
        for line in path.read_text("utf-8").splitlines():
            yield Record(**json.loads(line))
