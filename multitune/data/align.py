"""Which rows stay, and which of their parts: missing parts and answers are dropped, masked or refused, and counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, TypeVar

import numpy as np

from multitune.core import catalog
from multitune.core.errors import DataError
from multitune.core.ledger import Ledger
from multitune.core.recipe import DataSpec, Missing, PartSpec
from multitune.data.decode import modality
from multitune.data.mix import Mixed
from multitune.data.sample import cell, is_absent

Found = TypeVar("Found")
MOST_CLASSES = 4096  # of an answer that are remembered while it is read
AT_ONCE = 1 << 14  # cells that are taken together


@dataclass(frozen=True)
class Aligned:
    """The rows that stay.

    kept: their numbers in the mix, ascending. dropped, masked: part -> rows; the part is empty where none of a row's parts is
    there. values: answer -> the decoded value of each kept row (None where absent), of answers that are no text.
    """

    mixed: Mixed
    spec: DataSpec
    kept: np.ndarray
    dropped: Mapping[str, int]
    masked: Mapping[str, int]
    values: Mapping[str, Sequence[Any]] = field(repr=False)


def align(mixed: Mixed, spec: DataSpec, ledger: Ledger) -> Aligned:
    """Decide for every row whether it stays; answers are read here, media are not opened.

    Raises: DataError for a column that no source has, for a part that is missing where that is refused (naming the first row), and
    for an answer that is not what its modality says.
    """
    present: dict[str, np.ndarray] = {}
    answers: dict[str, list[Any]] = {}
    for name, part in spec.parts.items():
        _check_modality(name, part, is_answer=name in spec.answers)
        column = part.column or name
        if modality(part.modality, part.options).media:  # their bytes stay where they are
            present[name] = _named(name, lambda column=column: mixed.present(column))
            continue
        cells = _named(name, lambda column=column: mixed.cells(column))
        if name in spec.answers:
            present[name], values = _answers(mixed, name, part, cells)
            answers |= {name: values} if values is not None else {}
        else:
            present[name] = _inputs(mixed, name, part, cells, ledger)
    dropped, masked, kept = _decide(mixed, spec, present, ledger)
    if not len(kept):
        reasons = ", ".join(f"{count} lack {part or 'every part'}" for part, count in dropped.items())
        raise DataError("data", f"no row is left of {len(mixed)} ({reasons}).", "Mend the data, or choose missing: mask.")
    all_kept = len(kept) == len(mixed)
    values = {name: cells if all_kept else [cells[i] for i in kept.tolist()] for name, cells in answers.items()}
    return Aligned(mixed, spec, kept, dropped, masked, values)


def unaligned(mixed: Mixed, spec: DataSpec) -> Aligned:
    """Every row as it is, whatever it lacks; no cell is read.

    Raises: DataError for a column that no source has.
    """
    for name, part in spec.parts.items():
        _check_modality(name, part, is_answer=name in spec.answers)
        _named(name, lambda column=part.column or name: mixed.require(column))
    return Aligned(mixed, spec, np.arange(len(mixed)), {}, {}, {})


def _check_modality(name: str, part: PartSpec, *, is_answer: bool) -> None:
    kind = catalog.find("modality", part.modality, part.options, where=f"data.parts.{name}").build()
    if is_answer and kind.media:
        raise DataError(
            f"data.answers.{name}", f"the modality {kind.name} is no answer.", "An answer is a category, labels, a number or a text."
        )
    if not is_answer and not kind.towers:
        raise DataError(f"data.parts.{name}", f"the modality {kind.name} serves answers only.", f"Add {name} to data.answers.")


def _named(name: str, read: Callable[[], Found]) -> Found:
    """What is read of the mix, an error naming the part."""
    try:
        return read()
    except DataError as error:
        raise DataError(f"data.parts.{name}", error.found, error.remedy) from None


def _answers(mixed: Mixed, name: str, part: PartSpec, cells: Iterable[Any]) -> tuple[np.ndarray, list[Any] | None]:
    """Which rows have an answer, and what it is: equal classes are one object; texts, of which nothing is counted, are not kept."""
    kind = modality(part.modality, part.options)
    there = np.zeros(len(mixed), dtype=bool)
    values: list[Any] | None = None if part.modality == "text" else []

    def read(value: Any, index: int) -> Any:
        try:
            return None if is_absent(value) else kind.decode(cell(value))
        except ValueError as error:
            raise DataError(_place(mixed, index, name), f"{error}.", f"Mend it, or read {name} as another modality.") from None

    known: dict[str | None, Any] = {}  # equal classes are read once, and are one object
    start = 0
    for some, texts in together(cells):
        if texts and kind.name in ("category", "labels"):
            if len(known) > MOST_CLASSES:
                known.clear()
            for index, word in enumerate(some, start):
                if word not in known:
                    known[word] = read(word, index)
            decoded = [known[word] for word in some]
        else:
            decoded = [read(value, index) for index, value in enumerate(some, start)]
        there[start : start + len(some)] = [value is not None for value in decoded]
        if values is not None:
            values += decoded
        start += len(some)
    return there, values


def together(cells: Iterable[Any]) -> Iterator[tuple[list[Any], bool]]:
    """Cells in order, many at a time, and whether all of them are texts or absent: what is equal then need be looked at once."""
    rest = iter(cells)
    while some := list(islice(rest, AT_ONCE)):
        yield some, set(map(type, some)) <= {str, type(None)}


def _inputs(mixed: Mixed, name: str, part: PartSpec, cells: Iterable[Any], ledger: Ledger) -> np.ndarray:
    """Which rows have the part. Texts of which decoding leaves something out are taken down; what cannot be decoded the loader meets."""
    kind = modality(part.modality, part.options)
    there = np.zeros(len(mixed), dtype=bool)
    for index, value in enumerate(cells):
        there[index] = not is_absent(value)
        try:
            decoded = kind.decode(value) if isinstance(value, str) else None
        except ValueError:
            continue
        if isinstance(decoded, str) and decoded != value:
            _record(mixed, index, ledger, "repaired", name, "NUL or lone surrogates left out")
    return there


def _decide(
    mixed: Mixed, spec: DataSpec, present: Mapping[str, np.ndarray], ledger: Ledger
) -> tuple[dict[str, int], dict[str, int], np.ndarray]:
    keep = np.ones(len(mixed), dtype=bool)
    dropped, masked = Counter[str](), Counter[str]()
    for name, there in present.items():
        policy = _policy(spec, name)
        missing = np.flatnonzero(~there)
        if policy == "refuse" and len(missing):
            lack, them = ("rows lack", "them") if len(missing) > 1 else ("row lacks", "it")
            hint = f"{len(missing)} {lack} it. Mend {them}, or state data.parts.{name}.missing: drop or mask."
            raise DataError(_place(mixed, int(missing[0]), name), "is missing.", hint)
        for index in missing.tolist():
            if policy == "drop" and keep[index]:
                _record(mixed, index, ledger, "dropped", name, "missing")
                dropped[name] += 1
                keep[index] = False
    inputs = [there for name, there in present.items() if name not in spec.answers]
    answers = [present[name] for name in spec.answers]
    empty = ~np.logical_or.reduce(inputs) if inputs else np.zeros(len(mixed), dtype=bool)
    if answers:
        empty |= ~np.logical_or.reduce(answers)
    for index in np.flatnonzero(keep & empty).tolist():
        _record(mixed, index, ledger, "dropped", "", "no part or no answer is there")
        dropped[""] += 1
    keep &= ~empty
    for name, there in present.items():
        for index in np.flatnonzero(keep & ~there).tolist():
            _record(mixed, index, ledger, "masked", name, "missing")
            masked[name] += 1
    return dict(dropped), dict(masked), np.flatnonzero(keep)


def _policy(spec: DataSpec, name: str) -> Missing:
    own = spec.parts[name].missing
    return spec.missing if own == "data" else own


def _record(mixed: Mixed, index: int, ledger: Ledger, fate: Any, part: str, cause: str) -> None:
    entry, _ = mixed.entry(index)
    ledger.record(id=mixed.id(index), fate=fate, part=part, cause=cause, source=entry.name)


def _place(mixed: Mixed, index: int, part: str) -> str:
    return f"{mixed.place(index)}, {part}"
