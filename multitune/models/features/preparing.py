"""The preparer of a run whose features are stored: a row whose features are there is neither read nor decoded nor prepared."""

from __future__ import annotations

import copy
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from multitune.core.protocols import Batch, Memo, Preparer, Sample
from multitune.data.bucketing.lengths import tightened
from multitune.models.features.contents import Contents
from multitune.models.features.shards import Space
from multitune.models.features.ways import content as content_of
from multitune.models.features.ways import standing

LOST = "lost"  # in place of the hash of what has no features


@dataclass(frozen=True)
class Stand:
    """Where the features of a tower stand; parts, inputs and always: as its `Way` has them."""

    tower: str
    parts: tuple[str, ...]
    inputs: str
    always: bool
    folder: Path
    type: str

    def asked(self, sample: Sample) -> bool:
        """Whether the tower is asked for something of this row."""
        return self.always or any(name in sample.parts for name in self.parts)


class StoredPreparer:
    """A preparer that takes stored rows for those parts whose features are there, and names them in the batch (`Batch.stored`).

    Picklable: in another process it opens the store for itself, and reads those shards of it that were found to hold in this one.
    """

    def __init__(self, inner: Preparer, stands: Sequence[Stand], media: Path) -> None:
        self.inner, self.stands, self.media = inner, tuple(stands), media
        self._open: tuple[Contents, Mapping[str, Space]] | None = None
        self._shards: Mapping[str, frozenset[str]] = {}

    def __getstate__(self) -> dict[str, Any]:
        known = {tower: space.names for tower, space in self._open[1].items()} if self._open is not None else self._shards
        return {**vars(self), "_open": None, "_shards": known}

    def share(self, contents: Contents, spaces: Mapping[str, Space]) -> None:
        """Read from these in this process; they grow while rows are encoded."""
        self._open = contents, spaces

    def prepare(self, sample: Sample, memo: Memo) -> Mapping[str, Any]:
        """One row alone; under `stored`, tower -> the hash of the content whose features are there, `LOST` where they are not.

        Raises: BadPart for a part that cannot be decoded.
        """
        contents, spaces = self._opened()
        stored: dict[str, str] = {}
        given = sample
        for stand in self.stands:
            if stand.asked(sample):
                content = content_of(sample, stand.parts, contents.of)
                there = content in spaces[stand.tower]
                stored[stand.tower] = content if there else LOST
                given = standing(given, stand.parts, spaces[stand.tower].light(content)) if there else given
        return {**self.inner.prepare(given, memo), "stored": stored}

    def collate(self, rows: Sequence[Mapping[str, Any]]) -> Batch:
        """A batch of prepared rows."""
        stored = {stand.tower: tuple(row["stored"].get(stand.tower, "") for row in rows) for stand in self.stands}
        return replace(self.inner.collate(rows), stored=stored)

    def tight(self, stored: Collection[str] = ()) -> StoredPreparer:
        """The same, padding what has no features in the store to the longest row and no further."""
        made = copy.copy(self)
        made.inner = tightened(self.inner, {*stored, *(stand.inputs for stand in self.stands)})
        return made

    def bucket(self, row: Mapping[str, Any]) -> Hashable:
        """As without a store."""
        return self.inner.bucket(row)

    def describe(self) -> Mapping[str, Any]:
        """As without a store."""
        return self.inner.describe()

    def _opened(self) -> tuple[Contents, Mapping[str, Space]]:
        if self._open is None:
            spaces = {stand.tower: Space(stand.folder, stand.type) for stand in self.stands}
            for tower, space in spaces.items():
                space.look(verify=False, only=self._shards.get(tower))
            self._open = Contents(self.media), spaces
        return self._open
