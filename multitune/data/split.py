"""Train, valid and test: by a hash of the row's group or id, by a column, or by sources of their own; proven disjoint."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import compress, islice
from pathlib import Path
from typing import Any, get_args

import numpy as np

from multitune.core.errors import DataError
from multitune.core.protocols import Sample, Split
from multitune.core.randomness import derive, derive_each
from multitune.core.recipe import DataSpec, PartSpec
from multitune.data.align import AT_ONCE, Aligned, together
from multitune.data.decode import modality
from multitune.data.manifest import Manifest
from multitune.data.mix import Mixed
from multitune.data.sample import cell, is_absent, is_still, num_bytes, sample

MANY = 4096  # texts that are remembered while a column is read
FEW = 10
KNOWN_BYTES = 8 << 20  # of the samples that are kept of a split: those of files take a few kilobytes each
KNOWN_SAMPLE_BYTES = 1 << 15  # of one of them
SPLITS: tuple[Split, ...] = get_args(Split)


@dataclass
class Known:
    """Samples that were made before, by their place: the first that fit, none of them large; each as long as its files stay as they are."""

    bytes: int = 0
    _samples: dict[int, Sample] = field(default_factory=dict[int, Sample])

    def get(self, index: int) -> Sample | None:
        """The sample in place `index`, if it is kept and no file of its has changed."""
        found = self._samples.get(index)
        if found is None or is_still(found):
            return found
        self.bytes -= num_bytes(self._samples.pop(index))
        return None

    def put(self, index: int, made: Sample) -> None:
        """Keep a sample, if it is small and there is room."""
        size = num_bytes(made)
        if size <= KNOWN_SAMPLE_BYTES and self.bytes + size <= KNOWN_BYTES:
            self._samples[index] = made
            self.bytes += size


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
    def _known(self) -> Known | None:
        """None where a row may be another when it is read again."""
        tables = all(isinstance(rows, Manifest) for entry in self.mixed.entries for rows in entry.all_rows)
        return Known() if tables else None

    def sample(self, index: int) -> Sample:
        """The sample in place `index`, its media not opened; the first small ones are kept while their files stay as they are.

        Raises: BadPart for a value that cannot be its part.
        """
        known = self._known
        found = None if known is None else known.get(index)
        if found is None:
            found = self._made(index)
            if known is not None:
                known.put(index, found)
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
        return list(self.cells(part))

    def cells(self, part: str) -> Iterator[str | None]:
        """What `column` gives; of tables few cells are in memory at a time."""
        spec = self.parts.get(part)
        return _texts(_picked(self.mixed, (spec.column or part) if spec is not None else part, self.rows))

    def cells_of(self, column: str) -> Iterator[Any]:
        """The cells of a column as the sources have them, in order; of tables few are in memory at a time."""
        return _picked(self.mixed, column, self.rows)

    def values(self, part: str) -> list[Any]:
        """The decoded values of a part that is no medium, in order, None where absent."""
        spec = self.parts[part]
        kind, picked = modality(spec.modality, spec.options), _picked(self.mixed, spec.column or part, self.rows)
        return [None if is_absent(value) else kind.decode(cell(value)) for value in picked]

    @property
    def weights(self) -> np.ndarray:
        """The mixing weight of each row."""
        weights = [entry.weight for entry in self.mixed.entries]
        if len(set(weights)) == 1:
            return np.broadcast_to(np.float64(weights[0]), len(self.rows))  # one number, however many rows
        return np.repeat(weights, [len(entry.rows) for entry in self.mixed.entries])[self.rows]

    @property
    def sources(self) -> np.ndarray:
        """The number of the source of each row."""
        return np.searchsorted(self.mixed.starts, self.rows, side="right") - 1


def split(aligned: Aligned, spec: DataSpec) -> dict[Split, Examples]:
    """The rows of each split.

    Raises: DataError for a split that is empty though asked for, a group or id in two splits, a class that train lacks or
    that is alone, and a value of the split column that names no split.
    """
    mixed, rows, group = aligned.mixed, aligned.kept, _group(aligned.mixed, spec)
    where = _by_column(mixed, spec, rows) if spec.split.column else _by_hash(mixed, spec, rows, _keys(mixed, group, rows))
    if spec.limit:
        where = _limited(where, _ids(mixed, rows), spec)
    _prove_disjoint("id", lambda: _each_id(mixed, rows), where)
    if group and (spec.split.group or not spec.split.sources):
        _prove_disjoint("group", lambda: _values(mixed, group, rows), where)
    made: dict[Split, Examples] = {
        name: Examples(mixed, rows[where == number], spec.parts, group, name=name) for number, name in enumerate(SPLITS)
    }
    _check_filled(made, spec)
    for answer, values in aligned.values.items():
        kind = spec.parts[answer].modality
        if kind in ("category", "labels"):
            several = kind == "labels"
            _check_classes(answer, {name: _counted(values, where == n, several) for n, name in enumerate(SPLITS)}, several=several)
    return made


def _counted(values: Sequence[Any], chosen: np.ndarray, several: bool) -> Counter[str]:
    """How often each class is among the chosen values."""
    picked = (value for value in compress(values, chosen) if value is not None)
    return Counter(label for value in picked for label in value) if several else Counter(picked)


def whole(aligned: Aligned, spec: DataSpec) -> Examples:
    """All rows as one set, for data that are only measured or predicted."""
    return Examples(aligned.mixed, aligned.kept, spec.parts, _group(aligned.mixed, spec), name="test")


def _ids(mixed: Mixed, rows: np.ndarray) -> list[str]:
    """The ids of rows in their order, one by one where they are few: all of them at once cost a tenth of that each."""
    if len(rows) * FEW < len(mixed) or bool((rows[1:] <= rows[:-1]).any()):
        return [mixed.id(row) for row in rows.tolist()]
    return list(_each_id(mixed, rows))


def _each_id(mixed: Mixed, rows: np.ndarray) -> Iterator[str]:
    """The ids of ascending rows, few in memory at a time."""
    return compress(mixed.ids(), _mask(mixed, rows))


def _picked(mixed: Mixed, column: str, rows: np.ndarray) -> Iterator[Any]:
    """The cells of rows in their order; of ascending ones few are in memory at a time."""
    if bool((rows[1:] <= rows[:-1]).any()):
        cells = mixed.column(column)
        return (cells[index] for index in rows.tolist())
    return compress(mixed.cells(column), _mask(mixed, rows))


def _texts(cells: Iterable[Any]) -> Iterator[str | None]:
    """Cells as texts, None where absent; of equal ones that stand together each is looked at once."""
    known: dict[str | None, str | None] = {}
    for some, texts in together(cells):
        if texts:
            if len(known) > MANY:
                known.clear()
            known |= {word: _text(word) for word in dict.fromkeys(some) if word not in known}
            yield from map(known.__getitem__, some)
        else:
            yield from map(_text, some)


def _text(value: Any) -> str | None:
    return None if is_absent(value) else str(cell(value))


def _mask(mixed: Mixed, rows: np.ndarray) -> np.ndarray:
    taken = np.zeros(len(mixed), dtype=bool)
    taken[rows] = True
    return taken


def _group(mixed: Mixed, spec: DataSpec) -> str:
    """The column that keeps rows together; empty: there is none."""
    column = spec.split.group or ("group" if "group" in mixed.columns else "")
    try:
        if column:
            mixed.require(column)
    except DataError as error:
        raise DataError("data.split.group", error.found, error.remedy) from None
    return column


def _values(mixed: Mixed, column: str, rows: np.ndarray) -> Iterator[str]:
    """Each row's text in a column, empty where it has none."""
    return ("" if is_absent(value) else str(cell(value)) for value in _picked(mixed, column, rows))


def _keys(mixed: Mixed, group: str, rows: np.ndarray) -> Iterator[str]:
    """What the hash of each row is of: its group, else its id."""
    ids = _each_id(mixed, rows)
    return (own or row_id for own, row_id in zip(_values(mixed, group, rows), ids, strict=True)) if group else ids


def _by_hash(mixed: Mixed, spec: DataSpec, rows: np.ndarray, keys: Iterator[str]) -> np.ndarray:
    """A threshold on a hash; splits with sources of their own take no part, the others share in proportion."""
    free = [name for name in SPLITS if name not in spec.split.sources]
    shares = np.array([getattr(spec.split, name) for name in free], dtype=float)
    if shares.sum() <= 0:
        raise DataError("data.split", f"leaves nothing for {' and '.join(free)}.", "Give train a share.")
    edges = np.cumsum(shares / shares.sum())
    edges[np.flatnonzero(shares)[-1] :] = 1.0
    numbers, chosen, start = np.array([SPLITS.index(name) for name in free], dtype=np.int8), np.empty(len(rows), dtype=np.int8), 0
    while some := list(islice(keys, AT_ONCE)):
        drawn = np.array(derive_each("split", spec.split.seed, last=some), dtype=np.float64) / 2.0**63
        chosen[start : start + len(some)] = numbers[np.minimum(np.searchsorted(edges, drawn, side="right"), len(free) - 1)]
        start += len(some)
    if any(entry.split for entry in mixed.entries):
        own = np.array(["" if not entry.split else entry.split for entry in mixed.entries])[_sources(mixed, rows)]
        for number, name in enumerate(SPLITS):
            chosen[own == name] = number
    return chosen


def _sources(mixed: Mixed, rows: np.ndarray) -> np.ndarray:
    return np.searchsorted(mixed.starts, rows, side="right") - 1


def _by_column(mixed: Mixed, spec: DataSpec, rows: np.ndarray) -> np.ndarray:
    try:
        cells = _picked(mixed, spec.split.column, rows)
    except DataError as error:
        raise DataError("data.split.column", error.found, error.remedy) from None
    chosen = np.empty(len(rows), dtype=np.int8)
    for place, named in enumerate(cells):
        if named not in SPLITS:
            found = "nothing" if is_absent(named) else f'"{named}"'
            raise DataError(f"{mixed.place(int(rows[place]))}, {spec.split.column}", f"found {found}.", "A split is train, valid or test.")
        chosen[place] = SPLITS.index(named)
    return chosen


def _limited(where: np.ndarray, ids: Sequence[str], spec: DataSpec) -> np.ndarray:
    """Keep the first `limit` rows of train by hash order; the others get split -1."""
    train = np.flatnonzero(where == 0)
    order = sorted(train.tolist(), key=lambda place: (derive("limit", spec.split.seed, ids[place]), ids[place]))
    limited = where.copy()
    limited[order[spec.limit :]] = -1
    return limited


def _prove_disjoint(kind: str, keys: Callable[[], Iterator[str]], where: np.ndarray) -> None:
    """Refuse a key (an empty one is none) in two splits. keys: gives them all, as often as it is asked."""
    if _surely_disjoint(keys(), where):
        return
    first: dict[str, int] = {}
    for key, number in zip(keys(), where.tolist(), strict=True):
        if key and number >= 0 and first.setdefault(key, number) != number:
            raise DataError(
                "data.split", f'the {kind} "{key}" is in {SPLITS[first[key]]} and in {SPLITS[number]}.', "Put it into one split."
            )


def _surely_disjoint(keys: Iterator[str], where: np.ndarray) -> bool:
    """Whether rows whose keys have the same hash are in one split: some bytes a row, where the keys themselves take a hundred."""
    hashes = np.fromiter((hash(key) for key in keys), dtype=np.int64, count=len(where))
    order = np.argsort(hashes)
    hashes.sort()
    sorted_where = where[order]
    return not bool(((hashes[1:] == hashes[:-1]) & (sorted_where[1:] != sorted_where[:-1])).any())


def _check_filled(made: Mapping[Split, Examples], spec: DataSpec) -> None:
    counts = ", ".join(f"{name} {len(examples)}" for name, examples in made.items())
    for name, examples in made.items():
        asked = name == "train" or (not spec.split.column and (name in spec.split.sources or getattr(spec.split, name) > 0))
        if asked and not len(examples):
            raise DataError("data.split", f"{name} is empty ({counts}).", "Give it a larger share, another seed, or more rows.")


def _check_classes(answer: str, counts: Mapping[Split, Counter[str]], *, several: bool) -> None:
    train = set(counts["train"])
    for name in ("valid", "test"):
        alone = {label: number for label, number in counts[name].items() if label not in train}
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
