"""LoRA in the linear layers of the towers' blocks; all that joins the towers moves whole.

The layers are found in each tower; PEFT inserts them. A tower that is not named stays frozen.
"""

from __future__ import annotations

from pydantic import Field

from multitune.core import catalog
from multitune.core.recipe import Component, TuningRow
from multitune.models.anatomy import Anatomy


class Options(catalog.Options):
    """How large the adapters are, where they go, and how fast they move."""

    rank: int = Field(default=8, ge=1)
    alpha: float = Field(default=16.0, gt=0, description="an adapter's product is multiplied by alpha / rank")
    dropout: float = Field(default=0.0, ge=0, lt=1)
    towers: tuple[str, ...] = Field(default=(), description="empty: every tower")
    rate: float = Field(default=1.0, gt=0, description="of the adapters; multiplies train.lr")
    head_rate: float = Field(default=1.0, ge=0, description="of what lies in no tower")


def build(options: Options) -> Lora:
    """The strategy."""
    return Lora(options)


class Lora:
    """A row that inserts adapters for each tower, and one for each thing outside the towers."""

    def __init__(self, options: Options) -> None:
        self._options = options

    def rows(self, anatomy: Anatomy) -> list[TuningRow]:
        """The tuning table.

        Raises: ModelError for a tower that is not there.
        """
        options = self._options
        towers = [anatomy.tower(name).name for name in options.towers] or [tower.name for tower in anatomy.towers]
        adapter = Component(name="lora", options={"rank": options.rank, "alpha": options.alpha, "dropout": options.dropout})
        adapters = [TuningRow(pattern=tower, rate=options.rate, insert=adapter) for tower in towers]
        return [*adapters, *(TuningRow(pattern=name, rate=options.head_rate) for name in anatomy.left)]
