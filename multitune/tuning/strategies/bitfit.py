"""Only the biases of the towers move, and all that joins the towers (BitFit).

A tower that is not named stays frozen.

Source: Ben Zaken et al. 2021, arXiv:2106.10199.
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
    rate: float = Field(default=1.0, gt=0, description="of the biases; multiplies train.lr")
    head_rate: float = Field(default=1.0, ge=0, description="of what lies in no tower")


def build(options: Options) -> Bitfit:
    """The strategy."""
    return Bitfit(options)


class Bitfit:
    """Rows for the biases of each tower, and one for each thing outside the towers."""

    def __init__(self, options: Options) -> None:
        self._options = options

    def rows(self, anatomy: Anatomy) -> list[TuningRow]:
        """The tuning table.

        Raises: ModelError for a tower that is not there, or that has no biases.
        """
        options = self._options
        towers = [anatomy.tower(name) for name in options.towers] or list(anatomy.towers)
        patterns = [pattern for tower in towers for pattern in _patterns(anatomy, tower)]
        moving = [TuningRow(pattern=pattern, rate=options.rate) for pattern in patterns]
        return [*moving, *(TuningRow(pattern=name, rate=options.head_rate) for name in anatomy.left)]


def _patterns(anatomy: Anatomy, tower: TowerInfo) -> list[str]:
    found = _meant(anatomy, tower)
    if not found:
        raise ModelError("strategy.towers", f"the tower {tower.name} has no biases.", "Name others in towers, or choose lora for it.")
    return shortest(anatomy, tower, found)


def _meant(anatomy: Anatomy, tower: TowerInfo) -> list[str]:
    names = [name for name in anatomy.parameters if name.startswith(f"{tower.name}.") and len(anatomy.shapes[name]) == 1]
    return [name for name in names if name.rpartition(".")[2] == "bias" or name.endswith("_bias")]
