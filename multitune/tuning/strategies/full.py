"""Everything moves: every tower, and all that joins them.

`towers` gives some towers a rate of their own, which multiplies `train.lr`; 0 freezes one. `layer_decay` below 1 lowers a tower's
rate once for each block further down: what follows its blocks has the whole rate, what precedes them the smallest.
"""

from __future__ import annotations

from pydantic import Field

from multitune.core import catalog
from multitune.core.recipe import TuningRow
from multitune.models.anatomy import Anatomy
from multitune.tuning.depth import rows_by_depth


class Options(catalog.Options):
    """Rates, multiplying `train.lr`."""

    towers: dict[str, float] = Field(default_factory=dict, description="tower: its rate; 1 by default, 0 freezes")
    layer_decay: float = Field(default=1.0, gt=0, le=1, description="multiplies a tower's rate once for each block further down")
    head_rate: float = Field(default=1.0, ge=0, description="the rate of what lies in no tower: heads, fusion, projections, connectors")


def build(options: Options) -> Full:
    """The strategy."""
    return Full(options)


class Full:
    """A row for each tower and for each thing outside them."""

    def __init__(self, options: Options) -> None:
        self._options = options

    def rows(self, anatomy: Anatomy) -> list[TuningRow]:
        """The tuning table.

        Raises: ModelError for a tower that is not there, or has no blocks by which to decay.
        """
        for name in self._options.towers:
            anatomy.tower(name)
        rates = {tower: self._options.towers.get(tower.name, 1.0) for tower in anatomy.towers}
        decay = self._options.layer_decay
        towers = [row for tower, rate in rates.items() for row in rows_by_depth(anatomy, tower, rate=rate, decay=decay if rate else 1.0)]
        return [*towers, *(TuningRow(pattern=name, rate=self._options.head_rate) for name in anatomy.left)]
