"""The preparer of families whose parts go to one tower each: from a sample to a row, from rows to a batch."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from multitune.core.protocols import AnswerNeed, Batch, Media, Memo, Needs, Part, Sample
from multitune.data.bucketing.lengths import Stream
from multitune.data.decode import BadPart, opened, read_as
from multitune.models import measuring
from multitune.models.signals import Row, Signal, TextSignal

NO_CLASS = -100


@dataclass(frozen=True)
class Prepared:
    """The value of a part that is already what its signal makes of it."""

    row: Row


@dataclass(frozen=True)
class TowerPreparer:
    """One signal for each part; answers become class indices (-100 where absent), ones and zeros, or standardised numbers (0 where absent).

    A row: `id`, `parts` (part -> what its signal made, absent parts not there), `answers`, and `truncated` (part -> tokens cut).
    """

    signals: Mapping[str, Signal]
    needs: Needs
    repeats: ClassVar[bool] = True

    def prepare(self, sample: Sample, memo: Memo) -> Mapping[str, Any]:
        """Decode and prepare each part that is there.

        Raises: BadPart for a part that cannot be decoded, or a class that the model does not have.
        """
        parts = {name: self._row(name, sample.parts[name], memo) for name in self.signals if name in sample.parts}
        needs = self.needs.answers
        answers = {name: answer_value(name, sample.parts[name], need) for name, need in needs.items() if name in sample.parts}
        truncated = {name: row["cut"] for name, row in parts.items() if row.get("cut")}
        return {"id": sample.id, "parts": parts, "answers": answers, "truncated": truncated}

    def collate(self, rows: Sequence[Mapping[str, Any]]) -> Batch:
        """A batch of prepared rows; a part that is absent in a row holds a filler there, which `presence` marks."""
        presence = {name: _flags([name in row["parts"] for row in rows]) for name in self.signals}
        inputs = {name: self.signals[name].batch(self._filled(name, rows)) for name in self.signals}
        presence |= {name: _flags([name in row["answers"] for row in rows]) for name in self.needs.answers}
        answers = {name: answer_tensor([row["answers"].get(name) for row in rows], need) for name, need in self.needs.answers.items()}
        return Batch(tuple(row["id"] for row in rows), inputs, answers, presence)

    def bucket(self, row: Mapping[str, Any]) -> Hashable:
        """Which parts are there, and the padded shape of each."""
        return tuple((name, self.signals[name].bucket(row["parts"][name])) for name in self.signals if name in row["parts"])

    def lengths(self, samples: Sequence[Sample]) -> Mapping[str, Stream]:
        """Part -> how long rows will be, of parts whose length varies."""
        return measuring.streams(self.signals, samples)

    def tight(self, stored: Collection[str] = ()) -> TowerPreparer:
        """The same, padding texts that are not stored to the longest row and no further."""
        texts = {name: signal for name, signal in self.signals.items() if isinstance(signal, TextSignal) and name not in stored}
        return replace(self, signals={**self.signals, **{name: replace(signal, step=1) for name, signal in texts.items()}})

    def describe(self) -> Mapping[str, Any]:
        """Each part's signal, and how each answer is written as a number."""
        answers = {
            name: {"modality": need.modality, "labels": list(need.labels), "mean": need.mean, "deviation": need.deviation}
            for name, need in self.needs.answers.items()
        }
        return {"parts": {name: dict(signal.describe()) for name, signal in self.signals.items()}, "answers": answers}

    def _row(self, name: str, part: Part, memo: Memo) -> Row:
        if isinstance(part.value, Prepared):
            return part.value.row
        signal = self.signals[name]
        make: Callable[[], Row] = lambda: signal.row(opened(part).value)  # noqa: E731
        return memo.get(f"{signal.key}:{read_as(part)}:{part.value.key}", make) if isinstance(part.value, Media) else make()

    def _filled(self, name: str, rows: Sequence[Mapping[str, Any]]) -> list[Row]:
        """The rows of one part; where it is absent, a row that is there, else a made-up one: shapes hold, values are never read."""
        there = next((row["parts"][name] for row in rows if name in row["parts"]), None)
        signal = self.signals[name]
        filler = there if there is not None else signal.row(signal.sample())
        return [row["parts"].get(name, filler) for row in rows]


def answer_value(name: str, part: Part, need: AnswerNeed) -> float | int | tuple[int, ...]:
    """An answer as the loss takes it: the index of its class, those of its labels, or the standardised number.

    Raises: BadPart for a class that is not among the labels, or a value that is no such answer.
    """
    value = opened(part).value
    if need.modality not in ("category", "labels"):
        return (float(value) - need.mean) / need.deviation
    named = value if need.modality == "labels" else (value,)
    for label in named:
        if label not in need.labels:
            raise BadPart(name, f'"{label}" is no class of the training data; they are {", ".join(need.labels[:12])}', part)
    places = tuple(need.labels.index(label) for label in named)
    return places if need.modality == "labels" else places[0]


def answer_tensor(values: Sequence[float | int | tuple[int, ...] | None], need: AnswerNeed) -> Tensor:
    """Answers of a batch: int64 class indices, -100 where absent; float32 (rows, labels), 1 where a label is there; or float32 numbers.

    What is absent is 0 but for classes.
    """
    if need.modality == "labels":
        made = torch.zeros(len(values), len(need.labels))
        for row, value in enumerate(values):
            made[row, list(value) if isinstance(value, tuple) else []] = 1.0
        return made
    if need.modality == "category":
        return torch.tensor([NO_CLASS if value is None else value for value in values], dtype=torch.int64)
    return torch.tensor([0.0 if value is None else value for value in values], dtype=torch.float32)


def _flags(values: Sequence[bool]) -> Tensor:
    return torch.tensor(values, dtype=torch.bool)
