"""Only the normalisation layers of the towers move, and all that joins the towers.

They are found by their form: modules whose own `weight` is a vector. A tower that is not named stays frozen.

Source: Frankle et al. 2020, arXiv:2003.00152.
"""

from __future__ import annotations

from pydantic import Field

from multitune.core import catalog
from multitune.core.errors import ModelError
from multitune.core.recipe import TuningRow
from multitune.models.anatomy import Anatomy, TowerInfo
from multitune.tuning.depth import shortest


class Options(catalog.Options):
    """In which towers, and how fast."""

    towers: tuple[str, ...] = Field(default=(), description="empty: every tower")
    rate: float = Field(default=1.0, gt=0, description="of the normalisation layers; multiplies train.lr")
    head_rate: float = Field(default=1.0, ge=0, description="of what lies in no tower")


def build(options: Options) -> Norm:
    """The strategy."""
    return Norm(options)


class Norm:
    """Rows for the normalisation layers of each tower, and one for each thing outside the towers."""

    def __init__(self, options: Options) -> None:
        self._options = options

    def rows(self, anatomy: Anatomy) -> list[TuningRow]:
        """The tuning table.

        Raises: ModelError for a tower that is not there, or that has no normalisation layers with weights.
        """
        options = self._options
        towers = [anatomy.tower(name) for name in options.towers] or list(anatomy.towers)
        patterns = [pattern for tower in towers for pattern in _patterns(anatomy, tower)]
        moving = [TuningRow(pattern=pattern, rate=options.rate) for pattern in patterns]
        return [*moving, *(TuningRow(pattern=name, rate=options.head_rate) for name in anatomy.left)]


def _patterns(anatomy: Anatomy, tower: TowerInfo) -> list[str]:
    found = _meant(anatomy, tower)
    if not found:
        raise ModelError(
            "strategy.towers",
            f"the tower {tower.name} has no normalisation layers with weights.",
            "Name others in towers, or choose lora for it.",
        )
    return shortest(anatomy, tower, found)


def _meant(anatomy: Anatomy, tower: TowerInfo) -> list[str]:
    inside = {name for name in anatomy.parameters if name.startswith(f"{tower.name}.")}
    scales = [name for name in inside if name.rpartition(".")[2] == "weight" and len(anatomy.shapes[name]) == 1 and anatomy.sizes[name] > 1]
    layers = {name.rpartition(".")[0] for name in scales}
    return [name for name in anatomy.parameters if name in inside and name.rpartition(".")[0] in layers]
