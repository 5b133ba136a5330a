"""The architecture on one page: the nouns that travel between rooms, and a Protocol for every kind of plug-in.

    row --source--> Rows --align--> Sample --prepare--> prepared --collate--> Batch --encode--> Features --join--> Outputs --> loss
                                                                                                     Outputs --read--> Prediction

The nouns themselves stand in `nouns.py` and are given out here too.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from multitune.core.finding import Finding
from multitune.core.nouns import (
    Answer,
    AnswerNeed,
    Batch,
    Category,
    Embedding,
    Features,
    Figure,
    Labels,
    Media,
    Module,
    Needs,
    Number,
    Outputs,
    Part,
    PartNeed,
    Prediction,
    Sample,
    Sound,
    Split,
    Tensor,
    Text,
)

if TYPE_CHECKING:
    import numpy as np

__all__ = [
    "Answer", "AnswerNeed", "Batch", "Category", "Embedding", "Features", "Figure", "Labels", "Media",
    "Module", "Needs", "Number", "Outputs", "Part", "PartNeed", "Prediction", "Sample",
    "Sound", "Split", "Tensor", "Text",
    "Rows", "Source", "Modality", "MediaModality", "CellModality", "Augmentation", "Memo", "Preparer", "Family",
    "Strategy", "Insert", "Loss", "TaughtLoss", "Optimizer", "Decision", "Control", "ByRow", "Metric", "Check", "Predictor", "Task",
    "TaskPreset",
]  # fmt: skip

# ------------------------------------------------------------------------------------------------------- data: plug-ins


@runtime_checkable
class Rows(Protocol):
    """A table as text, not one medium opened. Picklable and small: a mapped file, or objects in memory.

    fingerprint: hash of the content (for a file: of its bytes). row: column -> text (or the object, for rows in memory);
    absent values are not in the mapping. root: what relative media paths are relative to.
    """

    @property
    def name(self) -> str: ...
    @property
    def columns(self) -> tuple[str, ...]: ...
    @property
    def fingerprint(self) -> str: ...
    @property
    def root(self) -> Path | None: ...
    def __len__(self) -> int: ...
    def id(self, index: int) -> str: ...
    def row(self, index: int) -> Mapping[str, Any]: ...
    def column(self, name: str) -> Sequence[Any]: ...


class Source(Protocol):
    """`build(options) -> Source`."""

    def read(self) -> Rows: ...


class Modality(Protocol):
    """`build(options) -> Modality`: which formats it takes, how it is decoded, made up and checked; it never sees a processor.

    towers: names of Transformers' `input_modalities` that accept it (`image`, `text`, `audio` ..., or a name of your own that a tower
    plug-in states); empty for answers only.
    media: whether a value in a table is a path (or bytes) that the decode gate must open. max_bytes: of such a file.
    magic: format -> (offset, bytes) pairs that a file of that format holds; the gate takes no other.
    """

    name: str
    media: bool
    towers: tuple[str, ...]
    max_bytes: int
    magic: Mapping[str, tuple[tuple[int, bytes], ...]]

    def decode(self, value: Any) -> Any:
        """Text or bytes of a cell -> the value as `Part` describes it; a value that it gave it takes again.

        Raises: ValueError saying what was found.
        """
        ...

    def synthesize(self, seed: int) -> Any:
        """A small random value in decoded form; different seeds differ in size too."""
        ...


class MediaModality(Modality, Protocol):
    """A modality whose values are files."""

    def encode(self, value: Any) -> tuple[str, bytes]:
        """A decoded value as a file that `decode` gives back exactly: its suffix and its bytes."""
        ...


@runtime_checkable
class CellModality(Modality, Protocol):
    """A modality that is no medium and whose decoded values are no plain data (no text and no number): say, a list of numbers."""

    def write(self, value: Any) -> str:
        """A decoded value as the text of a cell that `decode` gives back exactly; without it, artifacts keep no golden rows."""
        ...


class Augmentation(Protocol):
    """`build(options) -> Augmentation`."""

    modality: str

    def apply(self, value: Any, generator: np.random.Generator) -> Any: ...


# ----------------------------------------------------------------------------------------------------- models: plug-ins


class Memo(Protocol):
    """Remembers what was made for a key, within a limit of bytes; the loader owns it."""

    def get(self, key: str, make: Callable[[], Any]) -> Any: ...


class Preparer(Protocol):
    """Turns samples into batches: picklable, without weights; runs in the loader's workers and in the server.

    `prepare` decodes by `data.decode.opened(part)` and may remember what it makes of one part under that medium's key
    (augmented parts come already decoded, with no key). `describe` is plain data: processors, sizes, rates, lengths,
    templates: what the contract hashes.
    """

    def prepare(self, sample: Sample, memo: Memo) -> Mapping[str, Any]:
        """One row alone. Under `truncated` it may say, part -> number of tokens that did not fit."""
        ...

    def collate(self, rows: Sequence[Mapping[str, Any]]) -> Batch: ...
    def bucket(self, row: Mapping[str, Any]) -> Hashable:
        """Equal for rows that pad each other in no way: the predictor groups by it, so that a row's bits depend on the row alone."""
        ...

    def describe(self) -> Mapping[str, Any]: ...


class Family(Protocol):
    """A torch module with the shape of a family.

    A family plug-in gives `build(options, needs: Needs, weights: Weights) -> Family`; `weights` says where they come from:
    pretrained, meta (no memory: for plans), or an artifact's folder. `forward(batch)` is `join(encode(batch), batch)`.
    """

    preparer: Preparer
    needs: Needs

    @property
    def towers(self) -> Mapping[str, Module]:
        """The models of one modality by their public names: the part that each encodes (a language model: `lm`)."""
        ...

    @property
    def sources(self) -> Mapping[str, Any]:
        """What was read, by tower (or `model`): objects with `provenance` and `report`, as models/load.py gives them."""
        ...

    @property
    def public(self) -> Mapping[str, str]:
        """Path -> public name of what lies in no tower, where the two differ: `{"model.visual_projection": "projection.image"}`."""
        ...

    def encode(self, batch: Batch) -> Features: ...
    def join(self, features: Features, batch: Batch) -> Outputs: ...
    def __call__(self, batch: Batch) -> Outputs: ...
    def predict(self, batch: Batch, *, generate: Mapping[str, Any]) -> list[Prediction]: ...
    def save(self, folder: Path) -> None:
        """Write towers/, model/, processor/, joint.safetensors as DESIGN's artifact has them (adapters by the caller)."""
        ...


# ----------------------------------------------------------------------------------------------------- tuning: plug-ins


class Strategy(Protocol):
    """`build(options) -> Strategy`: a preset that expands to the tuning table."""

    def rows(self, anatomy: Any) -> list[Any]:
        """`TuningRow`s for a `models.anatomy.Anatomy`. Raises ModelError for a tower or block that is not there."""
        ...


class Insert(Protocol):
    """`build(options) -> Insert`: something that a row of the tuning table puts into a tower; as it is put there it changes nothing.

    wants: the places that it needs, in words. Where it is no PEFT adapter, an artifact keeps its name, options and places.
    """

    wants: str

    def places(self, tower: str, pattern: str, anatomy: Any) -> Sequence[str]:
        """The paths inside a tower at which it goes in, by a `models.anatomy.Anatomy`; none where the pattern has no place for it."""
        ...

    def size(self, tower: str, places: Sequence[str], anatomy: Any) -> int:
        """Numbers in what is inserted."""
        ...

    def put(self, tower: Any, places: Sequence[str], *, where: str) -> list[str]:
        """Insert it, drawing from torch's default generator; gives the paths of its parameters inside the tower."""
        ...


class Loss(Protocol):
    """`build(options, needs: Needs) -> Loss`: a sum and a weight for each of its terms.

    One with parameters of its own is a torch module besides; in the tuning table they are called `loss...`, and they do not decay.
    over: `rows` (each row alone) or `pairs` (every embedding of the global batch). `weights` looks at answers only, so that it
    can be summed over the whole step before the first forward. A term's loss is its sum over its weight; terms are added with
    `shares[term]`, 1.0 where it is absent. terms: their names, the same for every batch.
    """

    over: Literal["rows", "pairs"]
    terms: tuple[str, ...]
    shares: Mapping[str, float]

    def weights(self, batch: Batch) -> Mapping[str, float]: ...
    def sums(self, outputs: Outputs, batch: Batch) -> Mapping[str, Tensor]: ...


class Optimizer(Protocol):
    """`build(options, groups, *, betas, eps) -> torch.optim.Optimizer`, the rate of every group 0: the loop sets it at each step.

    groups: `params` with `weight_decay`, and what the loop keeps there. The module states READS, those of `train.betas` and `train.eps`
    that it reads; DECAY, `coupled` where the decay is part of the gradient, else `decoupled`; STATE, what it keeps, in words; and
    `state_bytes(options, shape)` of a tensor. Where it states `check(options)`, that refuses what cannot be built on this machine. Its
    state is tensors and integers by parameter: they are saved under its own names.
    """

    def step(self) -> Any: ...
    def zero_grad(self, set_to_none: bool = True) -> None: ...


@runtime_checkable
class TaughtLoss(Protocol):
    """A loss that learns from another model's outputs besides: they are in `Batch.teacher`, made before the first step.

    teacher: an artifact, a run, a folder or a hub id. taught_answers, taught_parts: whose answers and pooled vectors it asks for.
    """

    teacher: str

    @property
    def taught_answers(self) -> tuple[str, ...]: ...
    @property
    def taught_parts(self) -> tuple[str, ...]: ...


@dataclass(frozen=True)
class Decision:
    """What a control asks for: nothing, a stop with its reason, the next phase at once, to keep this step's weights as the best."""

    stop: bool = False
    advance: bool = False
    best: bool = False
    reason: str = ""


class Control(Protocol):
    """`build(options) -> Control`: a pure function from a step's statistics; `state` in, `state` out, plain data."""

    def start(self) -> Mapping[str, Any]: ...
    def decide(self, state: Mapping[str, Any], *, step: int, figures: Mapping[str, float]) -> tuple[Mapping[str, Any], Decision]: ...


class Tracker(Protocol):
    """`build(options, *, folder, name, after, config) -> Tracker`: where figures go besides `events.jsonl`; on the main process alone.

    folder: its own, in the run's. name: the run's. after: the step that the run goes on from, 0 at its start. config: the plan's values.
    The module may state `PACKAGE`, what has to be installed. Nothing that it raises ends a run. where: what people open.
    """

    where: str

    def write(self, values: Mapping[str, float], *, step: int) -> None: ...
    def close(self) -> None: ...


# --------------------------------------------------------------------------------------- measure and deliver: plug-ins


class ByRow(Protocol):
    """A figure of a metric for any weighting of the rows that it counted, in their order: what a paired comparison draws from."""

    def __len__(self) -> int: ...
    def __call__(self, weights: np.ndarray) -> np.ndarray:
        """weights (draws, rows) -> values (draws,)."""
        ...


class Metric(Protocol):
    """`build(options, answer: str, need: AnswerNeed) -> Metric`; streams, keeps no logits. Inherit to have what it leaves out.

    The module states `SERVES`, the modalities of answers that it can judge, such as `("category",)`; `("",)` is for models without
    answers (built with `answer=""` and an empty need). An option called `match` gets `evaluate.match`.
    primary: the last step of the name of the figure that stands for the metric in ablations, such as `accuracy`.
    better: which way its figures are better. otherwise: the last steps of the names of those that are better the other way.
    """

    primary: str
    better: Literal["higher", "lower"] = "higher"
    otherwise: Collection[str] = ()

    def prompts(self, needs: Needs, column: Callable[[str], Sequence[str | None]]) -> Sequence[Sample]:
        """Samples that the model is asked about before the rows, such as the texts of labels. None unless a metric has some.

        column: gives the values of one in the rows to be measured, None where absent. Raises: RecipeError where the parts do not fit.
        """
        return ()

    def prompted(self, predictions: Sequence[Prediction]) -> None:
        """Take what the model said to `prompts`, in their order."""

    def update(self, prediction: Prediction, truth: Mapping[str, Any]) -> None:
        """Take one row. truth: the row's text columns and its parts that are text, category, labels or number, decoded.

        A row without the answer is passed over.
        """
        ...

    def compute(self, *, draws: int, seed: int) -> Iterator[Figure]:
        """Figures without the split's name: `accuracy`; nothing where no row had the answer."""
        ...

    def baseline(self) -> Iterator[Figure]:
        """What a model that looks at nothing reaches, named after its kind: `majority/accuracy`. None unless a metric gives some."""
        return iter(())

    def tables(self) -> Mapping[str, Sequence[Sequence[str]]]:
        """Tables for the report, the first row its heading: `confusion`. None unless a metric gives some."""
        return {}

    def by_row(self) -> Mapping[str, ByRow]:
        """Figure -> the same by weighted rows: with it the figure can be compared row by row. None unless a metric gives some."""
        return {}


class Check(Protocol):
    """`build(options) -> Check`: one question; gives findings.

    evidence: what there is to look at, by name: `report` (a measure.report.Report) after a measurement. A check that does not find
    what it looks at says nothing.
    """

    def findings(self, evidence: Mapping[str, Any]) -> Iterable[Finding]: ...


class Predictor(Protocol):
    """The one object under evaluate, predict and serve, and what every format's `open()` gives."""

    needs: Needs

    def predict(self, samples: Sequence[Sample]) -> list[Prediction]: ...


class Task(Protocol):
    """A task plug-in is plain data: `build(options) -> TaskPreset`."""


@dataclass(frozen=True)
class TaskPreset:
    """What a task expands to; each value may be overruled by the recipe.

    metrics: answer modality -> names; the key `""` serves a family without answers (retrieval). loss: of every answer but of those whose
    modality stands in losses; answers that ask for different ones are trained by the loss `several`.
    """

    family: str
    loss: str
    metrics: Mapping[str, tuple[str, ...]]
    answers: tuple[str, ...] = ()
    min_answers: int = 0
    losses: Mapping[str, str] = field(default_factory=dict)
