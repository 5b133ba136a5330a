"""The nouns that travel between rooms, as plain data; `protocols.py` gives them out beside what plug-ins must fill in.

No torch is imported here: `Tensor` and `Module` name torch's types without it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    import numpy as np

Tensor: TypeAlias = Any
Module: TypeAlias = Any
Split = Literal["train", "valid", "test"]


@dataclass(frozen=True)
class Media:
    """A picture, a sound or a film not yet decoded: a file or its bytes.

    key: equal for equal content as far as can be known without reading (path, size, mtime_ns, inode; or a hash of the bytes).
    """

    key: str
    path: Path | None = None
    data: bytes | None = None


@dataclass(frozen=True)
class Part:
    """One stream of a sample. `value` is `Media` until the decode gate has opened it.

    Decoded values: image: uint8 array (height, width, 3) RGB. audio: (float32 array (frames,), rate in Hz) as `Sound`.
    video: uint8 array (frames, height, width, 3) RGB. text: str. category: str. labels: tuple of str, sorted, each once. number: float.
    span: start and end in seconds on the sample's clock. options: of its modality, as the recipe has them.
    """

    modality: str
    value: Any
    span: tuple[float, float] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Sound:
    """A decoded sound: `wave` float32 (frames,) mono in -1..1, `rate` in Hz."""

    wave: np.ndarray
    rate: int


@dataclass(frozen=True)
class Sample:
    """One row, aligned: its parts by the user's names (answers among them), absent parts simply not there.

    source: name of the source in a mix. columns: the row's other text columns that metrics may ask for.
    """

    id: str
    parts: Mapping[str, Part]
    group: str = ""
    source: str = ""
    columns: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Batch:
    """Rows as the model takes them.

    inputs: part -> name -> tensor (rows, ...). answers: answer -> tensor: int64 (rows,) class index, float32 (rows, labels) 1 where a label
    is there, float32 (rows,) standardised number, or int64 (rows, tokens) with -100 outside the answer. presence: part or answer -> bool
    (rows,).
    A family that joins parts in one processor puts everything under one input name. teacher: what a teacher said of the rows, joined by
    their ids (tuning/teaching): `answer/<name>`, `feature/<part>`, and `there`, bool (rows,): of which rows it said something.
    stored: tower -> for each row the hash of the content whose features are put in for running the tower, empty where it lacks the part.
    contents: part -> int64 (rows,), equal where rows hold the same file or the same text, as far as can be known without reading; only
    for a loss over pairs.
    """

    ids: tuple[str, ...]
    inputs: Mapping[str, Mapping[str, Tensor]]
    answers: Mapping[str, Tensor]
    presence: Mapping[str, Tensor]
    teacher: Mapping[str, Tensor] = field(default_factory=dict)
    stored: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    contents: Mapping[str, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Features:
    """What towers give: part -> tree of tensors, rows first (for instance tokens (rows, tokens, width) and mask (rows, tokens))."""

    parts: Mapping[str, Mapping[str, Tensor]]


@dataclass(frozen=True)
class Outputs:
    """What a family's `join` gives; a family fills the fields of its shape.

    logits: answer -> (rows, classes or labels), (rows,) or (rows, tokens, vocabulary) aligned with `Batch.answers` (already shifted).
    embeddings: part -> (rows, width), unit length. scalars: name -> (), such as the learned `scale` (not its logarithm) and `bias`.
    features: part -> (rows, width), what its tower made of it as one vector, where a family gives that; zeros where absent.
    """

    logits: Mapping[str, Tensor] = field(default_factory=dict)
    embeddings: Mapping[str, Tensor] = field(default_factory=dict)
    scalars: Mapping[str, Tensor] = field(default_factory=dict)
    features: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Category:
    """A predicted class with the probability of each class."""

    value: str
    scores: Mapping[str, float]
    kind: Literal["category"] = "category"


@dataclass(frozen=True)
class Labels:
    """The predicted labels, those with a probability of at least one half, with the probability of each label (they do not sum to 1)."""

    value: tuple[str, ...]
    scores: Mapping[str, float]
    kind: Literal["labels"] = "labels"


@dataclass(frozen=True)
class Number:
    """A predicted number, in the user's units."""

    value: float
    kind: Literal["number"] = "number"


@dataclass(frozen=True)
class Text:
    """A predicted text; `score` is the mean log-probability per token."""

    value: str
    score: float
    kind: Literal["text"] = "text"


@dataclass(frozen=True)
class Embedding:
    """An embedding of unit length, float32 (width,)."""

    value: np.ndarray
    kind: Literal["embedding"] = "embedding"


Answer: TypeAlias = Category | Labels | Number | Text | Embedding


@dataclass(frozen=True)
class Prediction:
    """What a model gives for one sample: answers by name; embeddings go by the name of their part."""

    id: str
    answers: Mapping[str, Answer]


@dataclass(frozen=True)
class Figure:
    """A measured number with its 95 % bootstrap interval; `drawn` is false where none was drawn (both ends are then the value)."""

    name: str
    value: float
    low: float
    high: float
    drawn: bool = True


@dataclass(frozen=True)
class PartNeed:
    """What a family must know of a part: its modality and the modality's options from the recipe."""

    modality: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class AnswerNeed:
    """What a family must know of an answer.

    labels: the classes of a category, or the labels of which a row has any number, sorted. mean, deviation: of a number in the train
    split. counts: how often each label stands in the train split, in the order of labels (empty: not known).
    """

    modality: str
    labels: tuple[str, ...] = ()
    mean: float = 0.0
    deviation: float = 1.0
    options: Mapping[str, Any] = field(default_factory=dict)
    counts: tuple[int, ...] = ()


@dataclass(frozen=True)
class Needs:
    """What the data ask of a model; with a family's options it is all that building one takes."""

    parts: Mapping[str, PartNeed]
    answers: Mapping[str, AnswerNeed]
