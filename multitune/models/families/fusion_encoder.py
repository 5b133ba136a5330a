"""Any number of towers, joined by a fusion; one head per answer: a class, a set of labels or a number.

Each input part has a tower. What is absent in a row is left out of its fusion.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from pydantic import Field
from torch import Tensor, nn
from transformers import PreTrainedModel

from multitune.core import catalog
from multitune.core.errors import ModelError
from multitune.core.protocols import Answer, AnswerNeed, Batch, Category, Features, Labels, Needs, Number, Outputs, Prediction
from multitune.core.recipe import Component
from multitune.models import encoders
from multitune.models.joining import Fusion, Heads
from multitune.models.load import Tower, TowerSpec, Weights

MAX_DEFAULT_WIDTH = 128
LIKELY = 0.5


class Options(catalog.Options):
    """The towers by part, and how they are joined."""

    towers: dict[str, TowerSpec] = Field(min_length=1, description="part: a base, a folder, a hub id, or {pretrained, weights, pool, ...}")
    fuse: Component = Field(default=Component(name="concat"), description="a plug-in of models/fusions")
    width: int = Field(default=0, ge=0, description="of the joint vector; 0: the narrowest tower's, at most 128")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="before the heads")


class FusionEncoder(nn.Module):
    """towers -> fusion -> head."""

    def __init__(self, towers: Mapping[str, Tower], needs: Needs, options: Options, weights: Weights) -> None:
        super().__init__()
        self.needs = needs
        self.loaded = dict(towers)
        self.preparer = encoders.preparer(towers, needs)
        self.tower = nn.ModuleDict({encoders.child(name): tower.module for name, tower in towers.items()})
        widths = {name: tower.width for name, tower in towers.items()}
        width = options.width or min(MAX_DEFAULT_WIDTH, *widths.values())
        plugin = catalog.find("fusion", options.fuse.name, options.fuse.options, where="model.fuse")
        with encoders.made_new(weights, "fusion"):
            self.fusion = cast("nn.Module", plugin.build(widths, width))
        self.pooled = encoders.pooling(towers if self._fusion.reads == "pooled" else {})
        with encoders.made_new(weights, "head"):
            self.head = Heads(self._fusion.slots, {name: _size(need) for name, need in needs.answers.items()}, options.dropout)

    @property
    def _fusion(self) -> Fusion:
        """The fusion by its protocol; a property, since an attribute would register its tensors twice."""
        return cast("Fusion", self.fusion)

    @property
    def towers(self) -> Mapping[str, PreTrainedModel]:
        """The towers by part."""
        return {name: tower.module for name, tower in self.loaded.items()}

    @property
    def pooling(self) -> Mapping[str, nn.Module]:
        """What gives a tower's vector, of towers of which nothing else is read."""
        return {name: self.pooled[encoders.child(name)] for name in (self.loaded if self.pooled else ())}

    @property
    def sources(self) -> Mapping[str, Tower]:
        """What was read, by tower."""
        return self.loaded

    @property
    def public(self) -> Mapping[str, str]:
        """Nothing is called otherwise than its path."""
        return {}

    def encode(self, batch: Batch) -> Features:
        """For each part `pooled` and, where the fusion reads them, `tokens` and `mask`; absent rows are zeros, which are never read."""
        made: dict[str, Mapping[str, Tensor]] = {}
        for name, tower in self.loaded.items():
            if self.pooled:
                made[name] = {"pooled": encoders.pool_present(self.pooled[encoders.child(name)], tower, batch, name)}
            else:
                read = encoders.run_present(tower.module, batch, name, pool=tower.pool, width=tower.width)
                made[name] = {"pooled": read.pooled, "tokens": read.values, "mask": read.mask}
        return Features(made)

    def join(self, features: Features, batch: Batch) -> Outputs:
        """Logits (rows, classes) for a category, (rows, labels) for labels, (rows,) for a number."""
        slots = self._fusion(features.parts, {name: batch.presence[name] for name in self.loaded})
        logits = self.head.read(slots)
        numbers = {name for name, need in self.needs.answers.items() if need.modality == "number"}
        pooled = {name: part["pooled"] for name, part in features.parts.items()}
        return Outputs(logits={name: value[:, 0] if name in numbers else value for name, value in logits.items()}, features=pooled)

    def forward(self, batch: Batch) -> Outputs:
        """`join(encode(batch), batch)`."""
        return self.join(self.encode(batch), batch)

    def predict(self, batch: Batch, *, generate: Mapping[str, Any]) -> list[Prediction]:
        """The likeliest class or labels with all probabilities, or the number in the user's units; `generate` has no use here."""
        logits = self(batch).logits
        answers = {name: _read(logits[name], need) for name, need in self.needs.answers.items()}
        return [Prediction(id, {name: made[row] for name, made in answers.items()}) for row, id in enumerate(batch.ids)]

    def save(self, folder: Path) -> None:
        """`towers/<part>/` and `joint.safetensors`."""
        encoders.save_towers(self.loaded, folder)
        encoders.save_joint(self, _INSIDE, folder)


_INSIDE = ("tower",)


def _size(need: AnswerNeed) -> int:
    return 1 if need.modality == "number" else len(need.labels)


def _read(logits: Tensor, need: AnswerNeed) -> list[Answer]:
    if need.modality == "number":
        return [Number(value * need.deviation + need.mean) for value in logits.double().tolist()]
    if need.modality == "labels":
        every = [dict(zip(need.labels, row, strict=True)) for row in logits.double().sigmoid().tolist()]
        return [Labels(tuple(label for label, score in scores.items() if score >= LIKELY), scores) for scores in every]
    scores = logits.double().softmax(-1).tolist()
    best = logits.argmax(-1).tolist()
    return [Category(need.labels[place], dict(zip(need.labels, row, strict=True))) for place, row in zip(best, scores, strict=True)]


def build(options: Options, needs: Needs, weights: Weights) -> FusionEncoder:
    """The family.

    Raises: ModelError for an answer that no head can give, or towers that do not fit the parts.
    """
    if not needs.answers:
        raise ModelError("data.answers", "fusion_encoder has nothing to answer.", "Name an answer, or choose dual_encoder.")
    for name, need in needs.answers.items():
        if need.modality not in {"category", "labels", "number"}:
            remedy = "It gives a category, labels or a number."
            raise ModelError(f"data.parts.{name}", f"fusion_encoder cannot answer with {need.modality}.", remedy)
    towers = encoders.load_towers(options.towers, needs, weights)
    made = FusionEncoder(towers, needs, options, weights)
    if weights.mode == "artifact":
        encoders.load_joint(made, _INSIDE, cast("Path", weights.folder))
    return made.eval()
