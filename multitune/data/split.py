"""Train, valid and test: by a hash of the row's group or id, by a column, or by sources of their own; proven disjoint."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

import numpy as np

from multitune.core.errors import DataError
from multitune.core.protocols import Sample, Split
from multitune.core.randomness import derive, derive_each
from multitune.core.recipe import DataSpec, PartSpec
from multitune.data.align import Aligned
from multitune.data.decode import modality
from multitune.data.manifest import Manifest
from multitune.data.mix import Mixed
from multitune.data.sample import cell, is_absent, is_still, sample

MANY = 4096  # texts that are remembered while a column is read
FEW = 10
KNOWN_SAMPLES = 2048  # of a split: a few kilobytes each
SPLITS: tuple[Split, ...] = get_args(Split)


@dataclass(frozen=True)
class Examples:
    """The rows of one split, in the order of the sources; small to pickle where the sources are files.

    rows: their numbers in the mix. group: the column that keeps rows together.
    """

    mixed: Mixed
    rows: np.ndarray
    parts: Mapping[str, PartSpec]
    group: str = ""
    name: str = field(default="train", kw_only=True)

    def __len__(self) -> int:
        return len(self.rows)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("ids", "_known")}

    @cached_property
    def ids(self) -> list[str]:
        """The ids in order."""
        return _ids(self.mixed, self.rows)

    @cached_property
    def _known(self) -> dict[int, Sample] | None:
        """Samples that were made before; None where a row may be another when it is read again."""
        tables = all(isinstance(rows, Manifest) for entry in self.mixed.entries for rows in entry.all_rows)
        return {} if tables else None

    def sample(self, index: int) -> Sample:
        """The sample in place `index`, its media not opened; the first that are asked for are kept while their files stay as they are.

        Raises: BadPart for a value that cannot be its part.
        """
        known = self._known
        found = None if known is None else known.get(index)
        if found is None or not is_still(found):
            found = self._made(index)
            if known is not None and (index in known or len(known) < KNOWN_SAMPLES):
                known[index] = found
        return found

    def _made(self, index: int) -> Sample:
        number = int(self.rows[index])
        row = self.mixed.row(number)
        entry, _ = self.mixed.entry(number)
        roots = {spec.column or name: self.mixed.root(number, spec.column or name) for name, spec in self.parts.items()}
        group = str(cell(row.get(self.group)) or "") if self.group else ""
        return sample(row, self.parts, id=self.mixed.id(number), root=roots, group=group, source=entry.name)

    def rows_of(self, index: int) -> Mapping[str, Any]:
        """The row in place `index` as its source has it: column -> cell."""
        return self.mixed.row(int(self.rows[index]))

    def root_of(self, index: int) -> Path:
        """What relative paths of the row's own columns are relative to."""
        entry, _ = self.mixed.entry(int(self.rows[index]))
        return entry.rows.root or Path.cwd()

    def column(self, part: str) -> list[str | None]:
        """The text of a part or column in order, None where absent."""
        spec = self.parts.get(part)
        cells = self.mixed.column((spec.column or part) if spec is not None else part)
        known: dict[str, str] = {}  # texts that were looked at, where they are few
        found: list[str | None] = []
        for index in self.rows.tolist():
            value = cells[index]
            if type(value) is str and value in known:
                found.append(known[value])
                continue
            text = None if is_absent(value) else str(cell(value))
            if type(value) is str and text is not None and len(known) < MANY:
                known[value] = text
            found.append(text)
        return found

    def values(self, part: str) -> list[Any]:
        """The decoded values of a part that is no medium, in order, None where absent."""
        spec = self.parts[part]
        kind, cells = modality(spec.modality, spec.options), self.mixed.column(spec.column or part)
        picked = (cells[index] for index in self.rows.tolist())
        return [None if is_absent(value) else kind.decode(cell(value)) for value in picked]

    @property
    def weights(self) -> np.ndarray:
        """The mixing weight of each row."""
        every = np.repeat([entry.weight for entry in self.mixed.entries], [len(entry.rows) for entry in self.mixed.entries])
        return every[self.rows]

    @property
    def sources(self) -> np.ndarray:
        """The number of the source of each row."""
        return np.searchsorted(self.mixed.starts, self.rows, side="right") - 1


def split(aligned: Aligned, spec: DataSpec) -> dict[Split, Examples]:
    """The rows of each split.

    Raises: DataError for a split that is empty though asked for, a group or id in two splits, a class that train lacks or
    that is alone, and a value of the split column that names no split.
    """
    rows = aligned.kept
    group, groups = _groups(aligned.mixed, spec, rows)
    ids = _ids(aligned.mixed, rows)
    keys = [own or row_id for own, row_id in zip(groups, ids, strict=True)]
    where = _by_column(aligned.mixed, spec, rows) if spec.split.column else _by_hash(aligned.mixed, spec, rows, keys)
    if spec.limit:
        where = _limited(where, ids, spec)
    _prove_disjoint(where, ids, groups, explicit=bool(spec.split.group) or not spec.split.sources)
    made: dict[Split, Examples] = {
        name: Examples(aligned.mixed, rows[where == number], spec.parts, group, name=name) for number, name in enumerate(SPLITS)
    }
    _check_filled(made, spec)
    for answer, values in aligned.values.items():
        kind = spec.parts[answer].modality
        if kind in ("category", "labels"):
            found: dict[Split, list[Any]] = {
                name: [v for v, w in zip(values, where, strict=True) if w == n] for n, name in enumerate(SPLITS)
            }
            several = kind == "labels"
            _check_classes(answer, {n: [c for v in vs for c in v or ()] if several else vs for n, vs in found.items()}, several=several)
    return made


def whole(aligned: Aligned, spec: DataSpec) -> Examples:
    """All rows as one set, for data that are only measured or predicted."""
    group, _ = _groups(aligned.mixed, spec, aligned.kept)
    return Examples(aligned.mixed, aligned.kept, spec.parts, group, name="test")


def _ids(mixed: Mixed, rows: np.ndarray) -> list[str]:
    """The ids of rows, one by one where they are few: all of them at once cost a tenth of that each."""
    if len(rows) * FEW < len(mixed):
        return [mixed.id(row) for row in rows.tolist()]
    ids = mixed.ids()
    return [ids[row] for row in rows.tolist()]


def _groups(mixed: Mixed, spec: DataSpec, rows: np.ndarray) -> tuple[str, list[str]]:
    """The column that keeps rows together, and each row's value in it (empty where it has none)."""
    column = spec.split.group or ("group" if "group" in mixed.columns else "")
    if not column:
        return "", [""] * len(rows)
    try:
        cells = mixed.column(column)
    except DataError as error:
        raise DataError("data.split.group", error.found, error.remedy) from None
    return column, ["" if is_absent(cells[index]) else str(cell(cells[index])) for index in rows.tolist()]


def _by_hash(mixed: Mixed, spec: DataSpec, rows: np.ndarray, keys: Sequence[str]) -> np.ndarray:
    """A threshold on a hash; splits with sources of their own take no part, the others share in proportion."""
    own = np.array(["" if not entry.split else entry.split for entry in mixed.entries])[_sources(mixed, rows)]
    free = [name for name in SPLITS if name not in spec.split.sources]
    shares = np.array([getattr(spec.split, name) for name in free], dtype=float)
    if shares.sum() <= 0:
        raise DataError("data.split", f"leaves nothing for {' and '.join(free)}.", "Give train a share.")
    edges = np.cumsum(shares / shares.sum())
    edges[np.flatnonzero(shares)[-1] :] = 1.0
    drawn = np.array(derive_each("split", spec.split.seed, last=keys), dtype=np.float64) / 2.0**63
    chosen = np.array([SPLITS.index(name) for name in free])[np.minimum(np.searchsorted(edges, drawn, side="right"), len(free) - 1)]
    for number, name in enumerate(SPLITS):
        chosen[own == name] = number
    return chosen


def _sources(mixed: Mixed, rows: np.ndarray) -> np.ndarray:
    return np.searchsorted(mixed.starts, rows, side="right") - 1


def _by_column(mixed: Mixed, spec: DataSpec, rows: np.ndarray) -> np.ndarray:
    try:
        cells = mixed.column(spec.split.column)
    except DataError as error:
        raise DataError("data.split.column", error.found, error.remedy) from None
    chosen = np.empty(len(rows), dtype=np.int64)
    for place, index in enumerate(rows.tolist()):
        if cells[index] not in SPLITS:
            found = "nothing" if is_absent(cells[index]) else f'"{cells[index]}"'
            raise DataError(f"{mixed.place(index)}, {spec.split.column}", f"found {found}.", "A split is train, valid or test.")
        chosen[place] = SPLITS.index(cells[index])
    return chosen


def _limited(where: np.ndarray, ids: Sequence[str], spec: DataSpec) -> np.ndarray:
    """Keep the first `limit` rows of train by hash order; the others get split -1."""
    train = np.flatnonzero(where == 0)
    order = sorted(train.tolist(), key=lambda place: (derive("limit", spec.split.seed, ids[place]), ids[place]))
    limited = where.copy()
    limited[order[spec.limit :]] = -1
    return limited


def _prove_disjoint(where: np.ndarray, ids: Sequence[str], groups: Sequence[str], *, explicit: bool) -> None:
    for kind, keys in (("id", ids if len(set(ids)) < len(ids) else []), ("group", groups if explicit and any(groups) else [])):
        first: dict[str, int] = {}
        for key, number in zip(keys, where.tolist(), strict=bool(keys)):
            if key and number >= 0 and first.setdefault(key, number) != number:
                raise DataError(
                    "data.split", f'the {kind} "{key}" is in {SPLITS[first[key]]} and in {SPLITS[number]}.', "Put it into one split."
                )


def _check_filled(made: Mapping[Split, Examples], spec: DataSpec) -> None:
    counts = ", ".join(f"{name} {len(examples)}" for name, examples in made.items())
    for name, examples in made.items():
        asked = name == "train" or (not spec.split.column and (name in spec.split.sources or getattr(spec.split, name) > 0))
        if asked and not len(examples):
            raise DataError("data.split", f"{name} is empty ({counts}).", "Give it a larger share, another seed, or more rows.")


def _check_classes(answer: str, values: Mapping[Split, Sequence[str | None]], *, several: bool) -> None:
    train = {value for value in values["train"] if value is not None}
    for name in ("valid", "test"):
        alone = Counter(value for value in values[name] if value is not None and value not in train)
        if alone:
            label = min(alone)
            found = f'the class "{label}" is in {name} ({alone[label]} row{"s" if alone[label] > 1 else ""}) but not in train.'
            remedy = "Give the class more rows, try another data.split.seed, or say each row's split in a column (data.split.column)."
            raise DataError(f"data.answers.{answer}", found, remedy)
    if several and not train:
        raise DataError(f"data.answers.{answer}", "no row of train has a label.", "Labels are written dog|ball, or as a JSON list.")
    if len(train) < 2 and not several:
        found = f'the only class in train is "{next(iter(train))}".' if train else "train has no class."
        raise DataError(f"data.answers.{answer}", found, "A category has two classes or more.")
