"""The head first, on frozen towers; then everything, from the head that was found (LP-FT).

A head that starts at random bends pretrained towers while it is still wrong; one that was fitted first leaves them more of what
they know, which shows most on few rows and on data of another domain. The head is all that lies in no tower: fusion,
projections, connectors too. Its optimizer state goes on into the second phase.

Source: Kumar et al. 2022, arXiv:2202.10054.
"""

from __future__ import annotations

from pydantic import Field, field_validator

from multitune.core import catalog
from multitune.core.errors import ModelError
from multitune.core.recipe import TuningRow, step_or_share
from multitune.models.anatomy import Anatomy
from multitune.tuning.depth import rows_by_depth


class Options(catalog.Options):
    """How long the head is alone, and how fast things move. Rates multiply `train.lr`."""

    probe: int | str = Field(default="30%", description="steps in which the head moves alone, or their share of the run")
    probe_rate: float = Field(default=1.0, gt=0, description="the head's rate while it is alone")
    head_rate: float = Field(default=1.0, gt=0, description="the head's rate afterwards")
    rate: float = Field(default=1.0, gt=0, description="the towers' rate")
    towers: dict[str, float] = Field(default_factory=dict, description="tower: a rate of its own; 0 freezes")
    layer_decay: float = Field(default=1.0, gt=0, le=1, description="multiplies a tower's rate once for each block further down")

    @field_validator("probe")
    @classmethod
    def _step_or_share(cls, value: int | str) -> int | str:
        return step_or_share(value)


def build(options: Options) -> LpFt:
    """The strategy."""
    return LpFt(options)


class LpFt:
    """Rows for what lies outside the towers, from the first step; rows for the towers, from when the probing ends."""

    def __init__(self, options: Options) -> None:
        self._options = options

    def rows(self, anatomy: Anatomy) -> list[TuningRow]:
        """The tuning table.

        Raises: ModelError for a tower that is not there, a model without anything outside its towers, or a phase without steps.
        """
        options = self._options
        if not anatomy.left:
            raise ModelError("strategy", "the model has nothing outside its towers: there is no head to begin with.", "Choose full.")
        if options.probe in (0, "0%", "100%"):
            raise ModelError("strategy.probe", f"{options.probe} leaves one of the two phases no steps.", "Give a share such as 30%.")
        for name in options.towers:
            anatomy.tower(name)
        rates = {tower.name: options.towers.get(tower.name, options.rate) for tower in anatomy.towers}
        if not any(rates.values()):
            raise ModelError("strategy.towers", "every tower is frozen: the second phase opens nothing.", "Choose partial.")
        towers = [
            row
            for tower in anatomy.towers
            if rates[tower.name] > 0
            for row in rows_by_depth(anatomy, tower, rate=rates[tower.name], decay=options.layer_decay, start=options.probe)
        ]
        return [*towers, *(row for name in anatomy.left for row in self._head(name))]

    def _head(self, name: str) -> list[TuningRow]:
        options = self._options
        if options.probe_rate == options.head_rate:
            return [TuningRow(pattern=name, rate=options.head_rate)]
        alone = TuningRow(pattern=name, rate=options.probe_rate, stop=options.probe)
        return [alone, TuningRow(pattern=name, rate=options.head_rate, start=options.probe)]
