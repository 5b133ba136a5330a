"""LoRA in the linear layers of the towers' blocks; all that joins the towers moves whole.

The layers are found in each tower, or those that `layers` means; PEFT inserts them. A tower that is not named stays frozen.
`dora` lets the size of each output's weights move apart from their direction; `rslora` keeps large ranks as strong as small ones.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from multitune.core import catalog
from multitune.core.errors import ModelError
from multitune.core.recipe import Component, TuningRow
from multitune.models.anatomy import Anatomy


class Options(catalog.Options):
    """How large the adapters are, where they go, and how fast they move."""

    rank: int = Field(default=8, ge=1)
    ranks: dict[str, int] = Field(default_factory=dict, description="tower: a rank of its own")
    alpha: float = Field(default=16.0, gt=0, description="an adapter's product is multiplied by alpha / rank")
    dropout: float = Field(default=0.0, ge=0, lt=1)
    dora: bool = Field(default=False, description="weights are split into size and direction; both move")
    rslora: bool = Field(default=False, description="the product is multiplied by alpha / sqrt(rank) instead")
    towers: tuple[str, ...] = Field(default=(), description="empty: every tower")
    layers: tuple[str, ...] = Field(default=(), description='which linear layers, such as ["*q_proj", "*v_proj"]; empty: all of the blocks')
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

        Raises: ModelError for a tower that is not there, or a rank for one that has no adapters.
        """
        options = self._options
        towers = [anatomy.tower(name).name for name in options.towers] or [tower.name for tower in anatomy.towers]
        for name in options.ranks:
            if anatomy.tower(name).name not in towers:
                raise ModelError(f"strategy.ranks.{name}", f"the tower {name} is frozen: it has no adapters.", "Name it in towers too.")
        adapters = [
            TuningRow(pattern=tower, rate=options.rate, insert=Component(name="lora", options=self._adapter(tower))) for tower in towers
        ]
        return [*adapters, *(TuningRow(pattern=name, rate=options.head_rate) for name in anatomy.left)]

    def _adapter(self, tower: str) -> dict[str, Any]:
        """The options of one tower's adapters; dora, rslora and layers only where they are not at their defaults."""
        options = self._options
        more = options.model_dump(mode="json", include={"dora", "rslora", "layers"}, exclude_defaults=True)
        return {"rank": options.ranks.get(tower, options.rank), "alpha": options.alpha, "dropout": options.dropout, **more}
