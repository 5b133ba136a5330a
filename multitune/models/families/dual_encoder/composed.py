"""Towers composed into one space."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from multitune.core.protocols import Batch, Features, Needs, Outputs, Prediction
from multitune.models import encoders
from multitune.models.families.dual_encoder.space import MAX_SCALE, embeddings, predictions
from multitune.models.joining import linear
from multitune.models.load import Tower, TowerSpec, Weights

_INSIDE = ("tower",)


class Composed(nn.Module):
    """tower -> linear projection -> unit length, for each part.

    `scale` is the logarithm of what similarities are multiplied by; `bias`, where there is one, is added to them by a loss that reads it.
    """

    def __init__(
        self, towers: Mapping[str, Tower], needs: Needs, weights: Weights, *, width: int, scale: float, bias: float | None = None
    ) -> None:
        super().__init__()
        self.needs = needs
        self.loaded = dict(towers)
        self.preparer = encoders.preparer(towers, needs)
        self.tower = nn.ModuleDict({encoders.child(name): tower.module for name, tower in towers.items()})
        self.pooled = encoders.pooling(towers)
        with encoders.made_new(weights, "projection"):
            self.projection = nn.ModuleDict({encoders.child(name): linear(tower.width, width) for name, tower in towers.items()})
            self.scale = nn.Parameter(torch.full((), math.log(scale)))
            self.register_parameter("bias", None if bias is None else nn.Parameter(torch.full((), bias)))

    @property
    def towers(self) -> Mapping[str, PreTrainedModel]:
        """The towers by part."""
        return {name: tower.module for name, tower in self.loaded.items()}

    @property
    def pooling(self) -> Mapping[str, nn.Module]:
        """What gives a tower's vector, all that is read of it."""
        return {name: self.pooled[encoders.child(name)] for name in self.loaded}

    @property
    def sources(self) -> Mapping[str, Tower]:
        """What was read, by tower."""
        return self.loaded

    @property
    def public(self) -> Mapping[str, str]:
        """Nothing is called otherwise than its path."""
        return {}

    def encode(self, batch: Batch) -> Features:
        """part -> `pooled` (rows, width of its tower); zeros where absent."""
        pooled = self.pooling
        return Features({name: {"pooled": encoders.pool_present(pooled[name], tower, batch, name)} for name, tower in self.loaded.items()})

    def join(self, features: Features, batch: Batch) -> Outputs:
        """Embeddings of unit length, zeros where absent, the scale, at most 100, and the bias, if there is one."""
        made = {name: cast("Tensor", self.projection[encoders.child(name)](part["pooled"])) for name, part in features.parts.items()}
        own = dict(self.named_parameters(recurse=False))
        scalars = {"scale": self.scale.exp().clamp(max=MAX_SCALE)} | {name: own[name] for name in ("bias",) if name in own}
        return Outputs(embeddings=embeddings(made, batch), scalars=scalars)

    def forward(self, batch: Batch) -> Outputs:
        """`join(encode(batch), batch)`."""
        return self.join(self.encode(batch), batch)

    def predict(self, batch: Batch, *, generate: Mapping[str, Any]) -> list[Prediction]:
        """The embedding of each part that is there; `generate` has no use here."""
        return predictions(self(batch).embeddings, batch)

    def save(self, folder: Path) -> None:
        """`towers/<part>/` and `joint.safetensors`."""
        encoders.save_towers(self.loaded, folder)
        encoders.save_joint(self, _INSIDE, folder)


def compose(
    specs: Mapping[str, TowerSpec], needs: Needs, weights: Weights, *, width: int, scale: float, bias: float | None = None
) -> Composed:
    """The family of these towers.

    Raises: ModelError for towers that do not fit the parts.
    """
    made = Composed(encoders.load_towers(specs, needs, weights), needs, weights, width=width, scale=scale, bias=bias)
    if weights.mode == "artifact":
        encoders.load_joint(made, _INSIDE, cast("Path", weights.folder))
    return made.eval()
