"""How long rows are before one of them is decoded: texts by their tokens, media by their headers; measured once and remembered."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from multitune.core import store
from multitune.core.protocols import Media, Preparer, Sample
from multitune.data.decode import BadPart, modality
from multitune.data.split import Examples

CHUNK = 1024  # rows that are measured together


@dataclass(frozen=True)
class Stream:
    """The lengths of some rows in one stream: of what is real, and as they are padded when alone. 0 where absent."""

    real: Sequence[int]
    padded: Sequence[int]


@runtime_checkable
class Measuring(Protocol):
    """A preparer that can tell how long rows will be without preparing them."""

    def lengths(self, samples: Sequence[Sample]) -> Mapping[str, Stream]:
        """Stream -> the rows' lengths, in tokens (of text) or frames (of sound, of films); only streams whose length varies.

        The same streams for any samples. A row that cannot be read has the length 0.
        """
        ...


@runtime_checkable
class Tightening(Protocol):
    """A preparer whose batches may be padded to their longest row and no further."""

    def tight(self, stored: Collection[str] = ()) -> Preparer:
        """The same, so padding. stored: the inputs of a batch whose rows are in a store: padded as they were there."""
        ...


@dataclass(frozen=True)
class Lengths:
    """The lengths of rows by their place. streams: their names. real, padded: int32 (rows, streams)."""

    streams: tuple[str, ...]
    real: np.ndarray
    padded: np.ndarray

    @cached_property
    def digest(self) -> str:
        """Changes with any length."""
        return _digest(self.streams, self.real, self.padded)


def tightened(preparer: Preparer, stored: Collection[str] = ()) -> Preparer:
    """The same, padding batches to their longest row and no further, where it can; of inputs that are stored it cannot."""
    return preparer.tight(stored) if isinstance(preparer, Tightening) else preparer


def measured(examples: Examples, preparer: Preparer, places: Sequence[int] | None = None) -> Lengths | None:
    """The lengths of a split's rows, or of those in some places; None where the preparer knows of no stream whose length varies.

    Those of a whole split are remembered, by its rows, its files' stamps and all that the preparer does.
    """
    if not isinstance(preparer, Measuring) or not preparer.lengths([]):
        return None
    if places is not None:
        return _measured(examples, preparer, places)
    everywhere = range(len(examples))
    made: list[Lengths] = []

    def write(folder: Path) -> None:
        made.append(_measured(examples, preparer, everywhere))
        (folder / f"{made[0].digest}.safetensors").write_bytes(save({"real": made[0].real, "padded": made[0].padded}))

    folder = store.folder_once("lengths", _key(examples, preparer), write)
    return made[0] if made else _read(folder, tuple(preparer.lengths([])), rows=len(examples)) or _measured(examples, preparer, everywhere)


def _measured(examples: Examples, preparer: Measuring, places: Sequence[int]) -> Lengths:
    names = tuple(preparer.lengths([]))
    real, padded = (np.zeros((len(places), len(names)), np.int32) for _ in range(2))
    for start in range(0, len(places), CHUNK):
        samples = _samples(examples, places[start : start + CHUNK])
        found = preparer.lengths(samples)
        for column, name in enumerate(names):
            real[start : start + len(samples), column] = found[name].real
            padded[start : start + len(samples), column] = found[name].padded
    return Lengths(names, real, padded)


def _samples(examples: Examples, places: Iterable[int]) -> list[Sample]:
    """The samples in these places, one without parts where a value cannot be its part: the loader takes that down."""
    made: list[Sample] = []
    for place in places:
        try:
            made.append(examples.sample(place))
        except BadPart:
            made.append(Sample("", {}))
    return made


def _key(examples: Examples, preparer: Preparer) -> dict[str, object]:
    """All that decides the lengths of a split."""
    media = any(modality(spec.modality, spec.options).media for spec in examples.parts.values())
    stamps = hashlib.sha256()
    for place in range(len(examples)) if media else ():
        for sample in _samples(examples, [place]):
            stamps.update("\n".join(part.value.key for part in sample.parts.values() if isinstance(part.value, Media)).encode())
    entries = examples.mixed.entries
    return {
        "sources": [[entry.rows.fingerprint, *(joined.rows.fingerprint for joined in entry.joined)] for entry in entries],
        "rows": hashlib.sha256(np.ascontiguousarray(examples.rows, np.int64).tobytes()).hexdigest(),
        "parts": {name: spec.model_dump(mode="json") for name, spec in examples.parts.items()},
        "files": stamps.hexdigest(),
        "preparer": dict(preparer.describe()),
    }


def _read(folder: Path, names: tuple[str, ...], *, rows: int) -> Lengths | None:
    """What was remembered; None where it is not what was written."""
    for path in folder.glob("*.safetensors"):
        try:
            kept = load(path.read_bytes())
        except (OSError, SafetensorError):
            continue
        whole = kept.keys() == {"real", "padded"} and all(one.shape == (rows, len(names)) for one in kept.values())
        if whole and _digest(names, kept["real"], kept["padded"]) == path.stem:
            return Lengths(names, kept["real"], kept["padded"])
    return None


def _digest(streams: Sequence[str], real: np.ndarray, padded: np.ndarray) -> str:
    digest = hashlib.sha256(store.canonical(list(streams)).encode())
    for array in (real, padded):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]
