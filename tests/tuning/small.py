"""Small real models of the three shapes, and steps of random rows for them: what the tests of tuning train."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import BertConfig, BertModel

from multitune.core.plan import Plan, Value
from multitune.core.protocols import AnswerNeed, Batch, Features, Needs, Outputs, PartNeed
from multitune.core.randomness import derive
from multitune.core.recipe import TuningRow
from multitune.data.loader import StepBatches
from multitune.models import anatomy
from multitune.models.weights.judging import Report
from multitune.models.where import Provenance
from multitune.tuning import scope as scopes
from multitune.tuning.scope import Scope

Shape = Literal["classify", "speak", "embed"]
VOCABULARY, CLASSES, LENGTH, WIDTH = 40, 4, 6, 16
EVERYTHING = (TuningRow(pattern="*"),)


@dataclass(frozen=True)
class Read:
    """A module as if it had been read from a folder."""

    module: nn.Module
    provenance: Provenance = field(default_factory=lambda: Provenance("folder", "small"))
    report: Report = field(default_factory=Report)


class Small(nn.Module):
    """BERT towers with a head of the shape asked for; `head.norm` is a batch norm. The row of the id `sick` gives NaN."""

    sick = ""

    def __init__(self, shape: Shape, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.shape = shape
        parts = ("left", "right") if shape == "embed" else ("words",)
        answers = {
            "classify": {"kind": AnswerNeed("category", labels=tuple("abcd"))},
            "speak": {"reply": AnswerNeed("text")},
            "embed": {},
        }[shape]
        self.needs = Needs({part: PartNeed("text") for part in parts}, answers)
        self.tower = nn.ModuleDict({part: _tower(dropout) for part in parts})
        self.head = nn.ModuleDict({"norm": nn.BatchNorm1d(WIDTH), "out": nn.Linear(WIDTH, VOCABULARY if shape == "speak" else CLASSES)})
        self.head["drop"] = nn.Dropout(dropout)
        self.scale = nn.Parameter(torch.tensor(1.5))
        self.public: dict[str, str] = {}

    @property
    def towers(self) -> dict[str, Any]:
        """The towers by part."""
        return dict(self.tower.items())

    @property
    def sources(self) -> dict[str, Any]:
        """The towers count as read, the head does not."""
        return {name: Read(tower) for name, tower in self.tower.items()}

    def forward(self, batch: Batch) -> Outputs:
        """Outputs of the shape."""
        return self.join(self.encode(batch), batch)

    def encode(self, batch: Batch) -> Features:
        """Each tower's tokens."""
        return Features({part: {"tokens": tower(**batch.inputs[part]).last_hidden_state} for part, tower in self.tower.items()})

    def join(self, features: Features, batch: Batch) -> Outputs:
        """Outputs of the shape from the towers' tokens."""
        health = torch.tensor([float("nan") if name == self.sick else 1.0 for name in batch.ids])[:, None, None]
        states = {part: tree["tokens"] * health for part, tree in features.parts.items()}
        if self.shape == "embed":
            vectors = {part: self._joint(state.mean(1)) for part, state in states.items()}
            return Outputs(embeddings={k: functional.normalize(v, dim=-1) for k, v in vectors.items()}, scalars={"scale": self.scale.exp()})
        if self.shape == "speak":
            return Outputs(logits={"reply": self.head["out"](self.head["drop"](states["words"]))})
        return Outputs(logits={"kind": self._joint(states["words"].mean(1))})

    def _joint(self, vectors: Tensor) -> Tensor:
        return self.head["out"](self.head["drop"](self.head["norm"](vectors)))


def _tower(dropout: float) -> BertModel:
    config = BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=LENGTH,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
    )
    return BertModel(config, add_pooling_layer=False)


def small(shape: Shape, *, dropout: float = 0.0, seed: int = 0) -> Small:
    """A model whose numbers follow from the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Small(shape, dropout=dropout)


def scope_of(family: Small, rows: tuple[TuningRow, ...] = EVERYTHING, *, steps: int = 8, **options: Any) -> Scope:
    """The tuning table applied."""
    scope = scopes.apply(rows, anatomy.find(family), family, total_steps=steps, seed=0, **options)
    scope.enter(0)
    return scope


def rows(family: Small, count: int, *, seed: int = 0, first: int = 0) -> Batch:
    """Random rows; a row's content follows from (seed, its number); about one in five lacks its last part or answer."""
    made = [_row(family, seed, first + number) for number in range(count)]
    ids = tuple(f"row-{first + number}" for number in range(count))
    inputs = {
        part: {"input_ids": torch.stack([row[part] for row in made]), "attention_mask": torch.ones(count, LENGTH, dtype=torch.long)}
        for part in family.needs.parts
    }
    answers = {name: torch.stack([row["answer"] for row in made]) for name in family.needs.answers}
    names = [*family.needs.parts, *family.needs.answers]
    presence = {name: torch.ones(count, dtype=torch.bool) for name in names}
    presence[names[-1]] = torch.tensor([bool(row["there"]) for row in made])
    return Batch(ids, inputs, answers, presence)


def _row(family: Small, seed: int, number: int) -> dict[str, Any]:
    rng = torch.Generator().manual_seed(derive("row", seed, number))
    row: dict[str, Any] = {part: torch.randint(VOCABULARY, (LENGTH,), generator=rng) for part in family.needs.parts}
    if family.shape == "speak":
        reply = torch.randint(VOCABULARY, (LENGTH,), generator=rng)
        row["answer"] = torch.where(torch.arange(LENGTH) < number % LENGTH, -100, reply)
    else:
        row["answer"] = torch.randint(CLASSES, (), generator=rng)
    row["there"] = number % 5 != 4
    return row


def cut(batch: Batch, sizes: tuple[int, ...]) -> list[tuple[int, Batch]]:
    """The batch as numbered micro-batches of these sizes."""
    pieces: list[tuple[int, Batch]] = []
    start = 0
    for number, size in enumerate(sizes):
        part = slice(start, start + size)
        inputs = {name: {key: tensor[part] for key, tensor in tensors.items()} for name, tensors in batch.inputs.items()}
        answers = {name: tensor[part] for name, tensor in batch.answers.items()}
        presence, contents = ({name: tensor[part] for name, tensor in given.items()} for given in (batch.presence, batch.contents))
        pieces.append((number, Batch(batch.ids[part], inputs, answers, presence, contents=contents)))
        start += size
    return pieces


@dataclass
class Steps:
    """Steps of new random rows, cut into micro-batches; rank r takes every `world`-th."""

    family: Small
    sizes: tuple[int, ...] = (4, 4)
    rank: int = 0
    world: int = 1
    per_epoch: int = 4
    taken: list[int] = field(default_factory=list)

    def steps(self, start: int, stop: int) -> Iterator[StepBatches]:
        """Steps `start` up to `stop`."""
        for step in range(start, stop):
            self.taken.append(step)
            batch = rows(self.family, sum(self.sizes), first=100 * (step % self.per_epoch))
            micro = tuple(piece for piece in cut(batch, self.sizes) if piece[0] % self.world == self.rank)
            yield StepBatches(step, step // self.per_epoch, micro, 0.0)


def plan(**changes: Any) -> Plan:
    """A plan of 8 steps for these models; changes: `lr=1.0` for `train.lr`, or whole names (`average.ema`); a `Value` stands as it is."""
    values: dict[str, Any] = {
        "device": "cpu",
        "threads": 1,
        "lr": 1e-2,
        "optimizer": "adamw",
        "betas": [0.9, 0.98],
        "eps": 1e-8,
        "weight_decay": 0.05,
        "schedule": "cosine",
        "warmup_steps": 2,
        "decay_steps": 8,
        "clip_norm": 1.0,
        "precision": "fp32",
        "evaluate_every": 4,
        "checkpoint_every": 2,
        "keep": 2,
        "early_stop": {},
        "workers": 0,
    }
    given = {name: value if isinstance(value, Value) else Value(value, "recipe") for name, value in (values | changes).items()}
    named = {name if "." in name else f"train.{name}": value for name, value in given.items()}
    return Plan("small", {}, {"run.seed": Value(7, "recipe"), **named})
