"""Chosen towers move, each at its own rate and from its own step; the others stay frozen.

    strategy: {name: per_modality, towers: {image: {rate: 0.3, blocks: 2}, audio: {rate: 1, start: 20%}}, head_rate: 5}

A number in place of the options of a tower is its rate. A tower moves whole, or its last `blocks` blocks and what follows them.
All that lies in no tower moves from `head_start` on.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import Field, field_validator, model_validator

from multitune.core import catalog
from multitune.core.errors import ModelError
from multitune.core.recipe import TuningRow, step_or_share
from multitune.models.anatomy import Anatomy, TowerInfo
from multitune.tuning.depth import layers, rows_by_depth


class Tuned(catalog.Options):
    """When and how fast a tower moves, and how much of it."""

    rate: float = Field(default=1.0, gt=0, description="multiplies train.lr; to freeze a tower, leave it out")
    start: int | str = 0
    stop: int | str | None = None
    blocks: int | str = Field(default="all", description="how many of its last blocks move; all: the whole tower")
    layer_decay: float = Field(default=1.0, gt=0, le=1, description="multiplies the rate once for each block further down")

    @model_validator(mode="before")
    @classmethod
    def _from_rate(cls, value: Any) -> Any:
        return {"rate": value} if isinstance(value, int | float) else value

    @field_validator("blocks")
    @classmethod
    def _some_or_all(cls, value: int | str) -> int | str:
        if value != "all" and (isinstance(value, str) or value < 1):
            raise ValueError("give a number of its last blocks, or all; to freeze a tower, leave it out")
        return value

    @field_validator("start", "stop")
    @classmethod
    def _step_or_share(cls, value: int | str | None) -> int | str | None:
        return value if value is None else step_or_share(value)


class Options(catalog.Options):
    """Which towers move, and how."""

    towers: dict[str, Tuned] = Field(min_length=1, description="tower: its rate, or {rate, start, stop, blocks, layer_decay}")
    head_rate: float = Field(default=1.0, ge=0, description="of what lies in no tower; 0 freezes it")
    head_start: int | str = Field(default=0, description="the first step in which it moves, or a share of the run")

    @field_validator("head_start")
    @classmethod
    def _step_or_share(cls, value: int | str) -> int | str:
        return step_or_share(value)


def build(options: Options) -> PerModality:
    """The strategy."""
    return PerModality(options)


class PerModality:
    """Rows for each tower that is named, and one for each thing outside the towers."""

    def __init__(self, options: Options) -> None:
        self._options = options

    def rows(self, anatomy: Anatomy) -> list[TuningRow]:
        """The tuning table.

        Raises: ModelError for a tower that is not there, or has fewer blocks.
        """
        options = self._options
        towers = [row for name, tuned in options.towers.items() for row in _rows(anatomy, anatomy.tower(name), tuned)]
        return [*towers, *(TuningRow(pattern=name, rate=options.head_rate, start=options.head_start) for name in anatomy.left)]


def _rows(anatomy: Anatomy, tower: TowerInfo, tuned: Tuned) -> Iterator[TuningRow]:
    if isinstance(tuned.blocks, str):
        yield from rows_by_depth(anatomy, tower, rate=tuned.rate, decay=tuned.layer_decay, start=tuned.start, stop=tuned.stop)
        return
    if tuned.blocks > len(tower.blocks):
        found = f"the tower {tower.name} has {len(tower.blocks)} blocks, not {tuned.blocks}."
        raise ModelError(f"strategy.towers.{tower.name}.blocks", found, "Ask for fewer, or leave blocks out for all of it.")
    for layer in layers(anatomy, tower):
        if layer.depth <= tuned.blocks:
            rate = tuned.rate * tuned.layer_decay**layer.depth
            yield from (TuningRow(pattern=pattern, rate=rate, start=tuned.start, stop=tuned.stop) for pattern in layer.patterns)
