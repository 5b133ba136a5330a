"""The ways of a preparer: which parts of a sample go to which tower, and what of a row stands for them where features are kept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import torch

from multitune.core.protocols import Batch, Memo, Part, Preparer, Sample
from multitune.models.features.contents import Contents, settled
from multitune.models.predictor import Forgetful
from multitune.models.prepare import Prepared
from multitune.models.signals import Signal, Storable

Row = Mapping[str, Any]


class Way(Protocol):
    """How parts of a sample come to one tower.

    parts: of the sample, in order. inputs: the name under which a batch holds what the tower reads. always: the tower is asked for rows
    that have none of the parts, too.
    """

    @property
    def parts(self) -> tuple[str, ...]: ...
    @property
    def inputs(self) -> str: ...
    @property
    def modality(self) -> str: ...
    @property
    def always(self) -> bool: ...
    def describe(self) -> Mapping[str, Any]:
        """Plain data: all that decides what the tower reads of these parts."""
        ...

    def alone(self, sample: Sample, memo: Memo) -> Row:
        """The row of a sample that has only these parts. Raises: BadPart for one that cannot be decoded."""
        ...

    def light(self, row: Row, silent: Sequence[str]) -> Row:
        """What is kept of such a row: plain data and arrays, those of silent names hollow. A preparer takes it in place of the parts."""
        ...


@runtime_checkable
class Keeping(Protocol):
    """A preparer that says itself what can be kept."""

    def ways(self) -> Mapping[str, Way]:
        """Tower -> its way."""
        ...


@runtime_checkable
class Separate(Protocol):
    """A preparer whose parts each go their own way to a tower."""

    @property
    def signals(self) -> Mapping[str, Signal]: ...


@dataclass(frozen=True)
class PartWay:
    """One part, through its signal, to the tower of its name."""

    part: str
    signal: Storable
    preparer: Preparer
    always: bool = False

    @property
    def parts(self) -> tuple[str, ...]:
        """The part."""
        return (self.part,)

    @property
    def inputs(self) -> str:
        """The part."""
        return self.part

    @property
    def modality(self) -> str:
        """Of the signal."""
        return self.signal.modality

    def describe(self) -> Mapping[str, Any]:
        """The signal's."""
        return self.signal.describe()

    def alone(self, sample: Sample, memo: Memo) -> Row:
        """The row of this part alone."""
        return self.preparer.prepare(sample, memo)

    def light(self, row: Row, silent: Sequence[str]) -> Row:
        """As the signal keeps it."""
        return self.signal.light(row["parts"][self.part], silent)


def ways(preparer: Preparer) -> Mapping[str, Way]:
    """Tower -> the way of its parts; towers of which nothing can be kept are not there."""
    if isinstance(preparer, Keeping):
        return preparer.ways()
    signals = preparer.signals if isinstance(preparer, Separate) else {}
    return {part: PartWay(part, signal, preparer) for part, signal in signals.items() if isinstance(signal, Storable)}


def only(sample: Sample, parts: Sequence[str]) -> Sample:
    """The sample with nothing but these parts."""
    return Sample(sample.id, {name: sample.parts[name] for name in parts if name in sample.parts})


def standing(sample: Sample, parts: Sequence[str], light: Row) -> Sample:
    """The sample with what is kept in place of these parts: the first that is there stands for all; nothing changes where that is empty."""
    there = [name for name in parts if name in sample.parts]
    kept = {name: Prepared(light if place == 0 else {}) for place, name in enumerate(there)} if light else {}
    return replace(sample, parts={name: _with(part, kept.get(name)) for name, part in sample.parts.items()})


def content(sample: Sample, parts: Sequence[str], of: Callable[[Part], str]) -> str:
    """The hash of what these parts of a sample hold, in their order; empty where one cannot be read. of: the hash of one part."""
    there = [name for name in parts if name in sample.parts]
    if len(parts) == 1 and there:
        return of(sample.parts[there[0]])
    found = [[name, of(sample.parts[name])] for name in there]
    return hashlib.sha256(json.dumps(found).encode()).hexdigest() if all(digest for _, digest in found) else ""


def still(sample: Sample, parts: Sequence[str], known: str, contents: Contents) -> bool:
    """Whether these parts of a sample still hold what was hashed before they were read; what no stamp can tell of is hashed again."""
    there = only(sample, parts).parts.values()
    return all(map(settled, there)) and (all(map(contents.sure, there)) or content(sample, parts, contents.of) == known)


def trouble(preparer: Preparer, way: Way, samples: Sequence[Sample], silent: Sequence[str]) -> str:
    """Why what is kept cannot stand for the parts: a batch made of it is another; empty where all samples give the same."""
    for sample in samples:
        light = way.light(way.alone(only(sample, way.parts), Forgetful()), silent)
        whole, stood = (preparer.collate([preparer.prepare(one, Forgetful())]) for one in (sample, standing(sample, way.parts, light)))
        if name := _differs(whole, stood, way.inputs, silent):
            return f"its processor makes another {name} of what is kept than of the {way.modality} itself"
    return ""


def _differs(one: Batch, other: Batch, inputs: str, silent: Sequence[str]) -> str:
    """The name of an input that is not the same in two batches: not even its shape where it is silent."""
    for part, tensors in one.inputs.items():
        others = other.inputs.get(part, {})
        if tensors.keys() != others.keys():
            return next(iter(tensors.keys() ^ others.keys()))
        for name, tensor in tensors.items():
            again = others[name]
            quiet = part == inputs and name in silent
            if tensor.shape != again.shape or tensor.dtype != again.dtype or not (quiet or torch.equal(tensor, again)):
                return name
    return ""


def _with(part: Part, value: Prepared | None) -> Part:
    return part if value is None else Part(part.modality, value, part.span)
