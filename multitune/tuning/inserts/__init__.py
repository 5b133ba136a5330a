"""What rows of the tuning table insert into towers: which plug-in, where, how many numbers, and that it is put there once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from multitune.core import catalog
from multitune.core.errors import ModelError, did_you_mean, one_of
from multitune.core.protocols import Insert
from multitune.core.randomness import derive
from multitune.core.recipe import TuningRow
from multitune.models.anatomy import Anatomy
from multitune.tuning.rules import apart


@dataclass(frozen=True)
class Target:
    """What is inserted into one tower. rows: the positions of the rows that ask for it and rule it. places: paths inside the tower."""

    rows: tuple[int, ...]
    tower: str
    plugin: catalog.Plugin
    places: tuple[str, ...]

    @property
    def insert(self) -> Insert:
        """The plug-in with its options."""
        return self.plugin.build()


@dataclass(frozen=True)
class Put:
    """What was put into one tower: which plug-in, its options, at which paths, and the paths of the parameters that it brought."""

    name: str
    options: Mapping[str, Any]
    places: tuple[str, ...]
    parameters: tuple[str, ...]


@dataclass(frozen=True)
class Inserted:
    """towers: what was put there, by tower. by_row: position of the row -> public names of the parameters that it brought."""

    towers: Mapping[str, Put] = field(default_factory=dict)
    by_row: Mapping[int, tuple[str, ...]] = field(default_factory=dict)


def targets(rows: Sequence[TuningRow], anatomy: Anatomy, *, total: int) -> list[Target]:
    """Into which places each row inserts; empty where no row does. total: optimizer steps of the run.

    Rows of different steps may ask for the same: it is inserted once. Raises: PluginError for something unknown to insert or
    options that it does not take; ModelError for a pattern without a place for it, or two rows that ask for different things in
    one tower, or for the same at the same steps.
    """
    found: list[Target] = []
    for position, row in enumerate(rows):
        if row.insert is None:
            continue
        where = f"strategy.{position}.insert"
        plugin = catalog.find("insert", row.insert.name, row.insert.options, where=where)
        insert: Insert = plugin.build()
        towers = [tower.name for tower in anatomy.towers]
        _refuse_layers(rows, position, towers, anatomy)
        hits = {tower: tuple(insert.places(tower, row.pattern, anatomy)) for tower in towers}
        if not any(hits.values()):
            found_none = f'"{row.pattern}" has no place for {plugin.name} ({insert.wants}); towers are {", ".join(towers)}.'
            near = "Choose partial or full for it." if row.pattern in towers else did_you_mean(row.pattern, towers)
            raise ModelError(where, found_none, near)
        for tower, places in hits.items():
            if places:
                _join(found, Target((position,), tower, plugin, places), rows, total)
    return found


def _refuse_layers(rows: Sequence[TuningRow], position: int, towers: Sequence[str], anatomy: Anatomy) -> None:
    """Refuse each of a row's `layers` that names nothing, in its own towers or in those of rows that ask for the same kind.

    Raises: ModelError with the names that there are.
    """
    asked = rows[position].insert
    if asked is None or not asked.options.get("layers"):
        return
    where = f"strategy.{position}.insert"
    patterns = [row.pattern for row in rows if row.insert is not None and row.insert.name == asked.name]

    def named(layers: Sequence[str]) -> set[str]:
        one: Insert = catalog.find("insert", asked.name, {**asked.options, "layers": layers}, where=where).build()
        found = (place for tower in towers for pattern in patterns for place in one.places(tower, pattern, anatomy))
        return {place.rpartition(".")[2] for place in found}

    for layer in asked.options["layers"]:
        if not named([layer]) and (there := sorted(named(()))):
            found = f'"{layer}" names no layer that takes {asked.name}; there are {one_of(there)}.'
            raise ModelError(f"{where}.layers", found, did_you_mean(str(layer), there))


def _join(found: list[Target], new: Target, rows: Sequence[TuningRow], total: int) -> None:
    for place, old in enumerate(found):
        if old.tower == new.tower:
            same = (old.plugin.name, old.plugin.options, old.places) == (new.plugin.name, new.plugin.options, new.places)
            if not (same and all(apart(rows[row], rows[new.rows[0]], total) for row in old.rows)):
                what = f"the tower {new.tower} gets adapters from two rows."
                raise ModelError(f"strategy.{new.rows[0]}.insert", what, "Keep one, or ask for the same in both.")
            found[place] = replace(old, rows=(*old.rows, *new.rows))
            return
    found.append(new)


def size(target: Target, anatomy: Anatomy) -> int:
    """Numbers in what a target inserts."""
    return target.insert.size(target.tower, target.places, anatomy)


def insert(rows: Sequence[TuningRow], anatomy: Anatomy, family: Any, *, total: int, seed: int) -> Inserted:
    """Insert into `family` what the rows say; the first values are a function of (seed, tower), whatever was drawn before.

    Raises: as `targets` does, and what the plug-in refuses.
    """
    towers: dict[str, Put] = {}
    by_row: dict[int, tuple[str, ...]] = {}
    for target in targets(rows, anatomy, total=total):
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(derive("adapter", seed, target.tower))
            new = target.insert.put(family.towers[target.tower], target.places, where=f"strategy.{target.rows[0]}.insert")
        options = target.plugin.options.model_dump(mode="json")
        towers[target.tower] = Put(target.plugin.name, options, target.places, tuple(new))
        for row in target.rows:
            by_row[row] = (*by_row.get(row, ()), *(f"{target.tower}.{name}" for name in new))
    return Inserted(towers, by_row)


__all__ = ["Inserted", "Put", "Target", "insert", "size", "targets"]
