"""Bottleneck adapters in the towers' blocks; all that joins the towers moves whole, the towers themselves stay as they are.

An artifact of it keeps the adapters beside the towers; they cannot be added into the weights. A tower that is not named stays frozen.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from multitune.core import catalog
from multitune.core.recipe import Component, TuningRow
from multitune.models.anatomy import Anatomy


class Options(catalog.Options):
    """How narrow the adapters are, where they go, and how fast they move."""

    size: int = Field(default=32, ge=1, description="numbers in the middle of an adapter")
    activation: Literal["gelu", "relu", "silu"] = "gelu"
    dropout: float = Field(default=0.0, ge=0, lt=1)
    scale: float = Field(default=1.0, gt=0, description="multiplies what an adapter adds")
    towers: tuple[str, ...] = Field(default=(), description="empty: every tower")
    rate: float = Field(default=1.0, gt=0, description="of the adapters; multiplies train.lr")
    head_rate: float = Field(default=1.0, ge=0, description="of what lies in no tower")


def build(options: Options) -> Adapter:
    """The strategy."""
    return Adapter(options)


class Adapter:
    """A row that inserts bottlenecks for each tower, and one for each thing outside the towers."""

    def __init__(self, options: Options) -> None:
        self._options = options

    def rows(self, anatomy: Anatomy) -> list[TuningRow]:
        """The tuning table.

        Raises: ModelError for a tower that is not there.
        """
        options = self._options
        towers = [anatomy.tower(name).name for name in options.towers] or [tower.name for tower in anatomy.towers]
        shape = options.model_dump(include={"size", "activation", "dropout", "scale"}, exclude_unset=True)
        bottleneck = Component(name="bottleneck", options={"size": options.size, **shape})
        adapters = [TuningRow(pattern=tower, rate=options.rate, insert=bottleneck) for tower in towers]
        return [*adapters, *(TuningRow(pattern=name, rate=options.head_rate) for name in anatomy.left)]
