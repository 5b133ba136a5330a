"""The towers are frozen but for their last blocks; all that joins them moves.

With `blocks: 0`, the default, the towers are frozen: only heads, fusion, projections and connectors move. What follows the last
block of a tower (a final norm, a pooler) moves with its blocks. `layer_decay` below 1 lowers the rate once for each block further
down. `patterns` are added as they are.
"""

from __future__ import annotations

from pydantic import Field

from multitune.core import catalog
from multitune.core.errors import ModelError
from multitune.core.recipe import TuningRow
from multitune.models.anatomy import Anatomy, TowerInfo


class Options(catalog.Options):
    """How much of each tower moves, and how fast."""

    blocks: int = Field(default=0, ge=0, description="how many of the last blocks of each tower move")
    towers: dict[str, int] = Field(default_factory=dict, description="tower: a number of blocks of its own")
    patterns: tuple[str, ...] = Field(default=(), description="further tensors that move, such as image.embeddings")
    rate: float = Field(default=1.0, gt=0, description="of what moves in towers; multiplies train.lr")
    layer_decay: float = Field(default=1.0, gt=0, le=1, description="multiplies the rate once for each block further down")
    head_rate: float = Field(default=1.0, ge=0, description="of what lies in no tower")


def build(options: Options) -> Partial:
    """The strategy."""
    return Partial(options)


class Partial:
    """Rows for the last blocks of each tower, the patterns, and each thing outside the towers."""

    def __init__(self, options: Options) -> None:
        self._options = options

    def rows(self, anatomy: Anatomy) -> list[TuningRow]:
        """The tuning table.

        Raises: ModelError for a tower that is not there, or has fewer blocks.
        """
        for name in self._options.towers:
            anatomy.tower(name)
        options = self._options
        paths = [path for tower in anatomy.towers for path in self._paths(anatomy, tower)]
        for name in ("rate", "layer_decay"):
            if not paths and name in options.model_fields_set and (name == "layer_decay" or not options.patterns):
                found = f"{options.model_dump()[name]:g} is a rate for towers, and nothing of them moves (blocks is 0)."
                raise ModelError(f"strategy.{name}", found, "Leave it out, or let blocks move; head_rate is of what lies in no tower.")
        deep = {block: len(tower.blocks) - place for tower in anatomy.towers for place, block in enumerate(tower.blocks)}
        rates = {path: options.rate * options.layer_decay ** deep.get(path, 0) for path in paths}
        moving = [TuningRow(pattern=pattern, rate=rates.get(pattern, options.rate)) for pattern in (*paths, *options.patterns)]
        return [*moving, *(TuningRow(pattern=name, rate=options.head_rate) for name in anatomy.left)]

    def _paths(self, anatomy: Anatomy, tower: TowerInfo) -> list[str]:
        count = self._options.towers.get(tower.name, self._options.blocks)
        if count and not tower.blocks:
            found = f"no chain of blocks was found in the tower {tower.name}; {count} were asked for."
            raise ModelError("strategy.blocks", found, f"Name tensors with patterns, or {tower.name} for all of it.")
        if count > len(tower.blocks):
            found = f"the tower {tower.name} has {len(tower.blocks)} blocks, not {count}."
            raise ModelError("strategy.blocks", found, "Ask for fewer, or name tensors with patterns.")
        if not count:
            return []
        names = [name for name in anatomy.parameters if name.startswith(f"{tower.name}.")]
        in_last = [place for place, name in enumerate(names) if name.startswith(f"{tower.blocks[-1]}.")]
        after = dict.fromkeys(name.rpartition(".")[0] for name in names[max(in_last) + 1 :])
        return [*tower.blocks[-count:], *(path for path in after if path != tower.name)]
