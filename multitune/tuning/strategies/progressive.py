"""The head first, then the towers block by block downward, on a schedule of steps (gradual unfreezing).

The first stage moves all that lies in no tower. Each further stage adds the next `blocks` blocks of every tower, from the last
block down (with the last goes what follows it: a final norm, a pooler); the last stage adds what precedes the first block. A
tower of fewer blocks is whole earlier. What has begun to move goes on. Stages are equal shares of `over`, or start where `starts` says.

Source: Howard and Ruder 2018, arXiv:1801.06146.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field, field_validator

from multitune.core import catalog
from multitune.core.errors import ModelError
from multitune.core.recipe import TuningRow, step_or_share
from multitune.models.anatomy import Anatomy
from multitune.tuning.depth import layers


class Options(catalog.Options):
    """When what begins to move, and how fast. Rates multiply `train.lr`."""

    towers: tuple[str, ...] = Field(default=(), description="which towers are opened; empty: every one")
    blocks: int = Field(default=1, ge=1, description="how many blocks of a tower each stage adds")
    depth: int = Field(default=0, ge=0, description="how many of a tower's last blocks move in the end; 0: all, and what precedes them")
    over: str = Field(default="100%", description="share of the run over which the stages begin")
    starts: tuple[int | str, ...] = Field(default=(), description="when each stage after the head's starts: steps or shares of the run")
    rate: float = Field(default=1.0, gt=0, description="of what moves in towers")
    layer_decay: float = Field(default=1.0, gt=0, le=1, description="multiplies a tower's rate once for each block further down")
    head_rate: float = Field(default=1.0, gt=0, description="of what lies in no tower")

    @field_validator("over")
    @classmethod
    def _share(cls, value: str) -> str:
        if not value.endswith("%") or step_or_share(value) == "0%":
            raise ValueError('give a share ("50%")')
        return value

    @field_validator("starts")
    @classmethod
    def _steps_or_shares(cls, value: tuple[int | str, ...]) -> tuple[int | str, ...]:
        return tuple(step_or_share(one) for one in value)


def build(options: Options) -> Progressive:
    """The strategy."""
    return Progressive(options)


class Progressive:
    """A row for each thing outside the towers, and for each layer of a tower one that starts with its stage."""

    def __init__(self, options: Options) -> None:
        self._options = options

    def rows(self, anatomy: Anatomy) -> list[TuningRow]:
        """The tuning table.

        Raises: ModelError for a tower that is not there or has no blocks, or starts of which there are too many or too few.
        """
        options = self._options
        if not anatomy.left:
            raise ModelError("strategy", "the model has nothing outside its towers: there is no head to begin with.", "Choose full.")
        named = [anatomy.tower(name) for name in options.towers] or list(anatomy.towers)
        stages = {
            tower.name: [(self._stage(layer.depth), layer) for layer in layers(anatomy, tower) if self._moves(layer.depth)]
            for tower in named
        }
        starts = self._starts(max(stage for found in stages.values() for stage, _ in found))
        rows = [TuningRow(pattern=name, rate=options.head_rate) for name in anatomy.left]
        for found in stages.values():
            for stage, layer in found:
                rate = options.rate * options.layer_decay**layer.depth
                rows += [TuningRow(pattern=pattern, rate=rate, start=starts[stage - 1]) for pattern in layer.patterns]
        return rows

    def _moves(self, depth: int) -> bool:
        return not self._options.depth or depth <= self._options.depth

    def _stage(self, depth: int) -> int:
        """The stage (1 is the first after the head's) in which a layer begins to move."""
        return max(0, depth - 1) // self._options.blocks + 1

    def _starts(self, stages: int) -> Sequence[int | str]:
        """When each stage after the head's starts."""
        given = self._options.starts
        if given and len(given) != stages:
            found = f"{len(given)} starts are given, and after the head's there are {stages} stages."
            raise ModelError("strategy.starts", found, f"Give {stages}, or leave starts out for equal shares.")
        share = float(self._options.over[:-1]) / (stages + 1)
        return given or [f"{stage * share:.4f}%" for stage in range(1, stages + 1)]
