"""Every part in one space: a tower and a projection each, unit length, and a learned scale; or a CLIP-like model as it is.

With `towers`, any number of them are composed. With `pretrained`, a folder of a model that has `get_image_features` and its
like is taken whole, and comes back as such a folder.
"""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from multitune.core import catalog
from multitune.core.protocols import Needs
from multitune.models.families.dual_encoder.composed import Composed, compose
from multitune.models.families.dual_encoder.whole import Whole, take
from multitune.models.load import TowerSpec, Weights


class Options(catalog.Options):
    """Either `towers` or `pretrained`."""

    towers: dict[str, TowerSpec] = Field(
        default_factory=dict, description="part: a base, a folder, a hub id, or {pretrained, weights, pool, ...}"
    )
    width: int = Field(default=128, ge=1, description="of the common space of composed towers")
    scale: float = Field(default=1 / 0.07, gt=0, le=100, description="where the learned scale of composed towers starts")
    bias: float | None = Field(default=None, le=0, description="where a learned bias of composed towers starts (the loss sigmoid reads it)")
    pretrained: str = Field(default="", description="a CLIP-like model as it is: a folder or a hub id")

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if bool(self.towers) == bool(self.pretrained):
            raise ValueError("give either towers or pretrained")
        if self.pretrained and self.bias is not None:
            raise ValueError("a model taken whole has its own bias or none: leave bias out")
        return self


def build(options: Options, needs: Needs, weights: Weights) -> Composed | Whole:
    """The family.

    Raises: ModelError for towers that do not fit the parts, or a model that does not embed them.
    """
    if options.pretrained:
        return take(options.pretrained, needs, weights)
    return compose(options.towers, needs, weights, width=options.width, scale=options.scale, bias=options.bias)
