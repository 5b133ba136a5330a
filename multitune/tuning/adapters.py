"""What a row of the tuning table inserts: LoRA into the linear layers of a tower's blocks, by PEFT."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from pydantic import Field

from multitune.core import catalog
from multitune.core.errors import ModelError, did_you_mean
from multitune.core.randomness import derive
from multitune.core.recipe import TuningRow
from multitune.models.anatomy import Anatomy, matches
from multitune.tuning.rules import apart

if TYPE_CHECKING:
    from peft import LoraConfig

KINDS = ("lora",)


class Lora(catalog.Options):
    """How large an adapter is and how strongly it acts: its product is multiplied by alpha / rank."""

    rank: int = Field(default=8, ge=1)
    alpha: float = Field(default=16.0, gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)


@dataclass(frozen=True)
class Target:
    """What is inserted into one tower. rows: the positions of the rows that ask for it and rule it. layers: paths inside the tower."""

    rows: tuple[int, ...]
    tower: str
    options: Lora
    layers: tuple[str, ...]


@dataclass(frozen=True)
class Inserted:
    """configs: PEFT's, by tower. by_row: position of the row -> parts of the tower's parameter paths that it brought."""

    configs: Mapping[str, LoraConfig] = field(default_factory=dict)
    by_row: Mapping[int, tuple[str, ...]] = field(default_factory=dict)


def targets(rows: Sequence[TuningRow], anatomy: Anatomy, *, total: int) -> list[Target]:
    """Into which layers each row inserts; empty where no row does. total: optimizer steps of the run.

    Rows of different steps may ask for the same: it is inserted once. Raises: ModelError for something unknown to insert, a
    pattern without linear layers, or two rows that ask for different things in one tower, or for the same at the same steps.
    """
    found: list[Target] = []
    for position, row in enumerate(rows):
        if row.insert is None:
            continue
        where = f"strategy.{position}.insert"
        if row.insert.name not in KINDS:
            raise ModelError(where, f'"{row.insert.name}" cannot be inserted; there is lora.', did_you_mean(row.insert.name, KINDS))
        options = catalog.parse(Lora, row.insert.options, where=where)
        towers = [tower.name for tower in anatomy.towers]
        hits = {tower: _layers(tower, row.pattern, anatomy) for tower in towers}
        if not any(hits.values()):
            found_none = f'"{row.pattern}" matches no linear layer of a tower; towers are {", ".join(towers)}.'
            near = "Choose partial or full for it." if row.pattern in towers else did_you_mean(row.pattern, towers)
            raise ModelError(where, found_none, near)
        for tower, layers in hits.items():
            if layers:
                _join(found, Target((position,), tower, options, layers), rows, total)
    return found


def _join(found: list[Target], new: Target, rows: Sequence[TuningRow], total: int) -> None:
    for place, old in enumerate(found):
        if old.tower == new.tower:
            same = (old.options, old.layers) == (new.options, new.layers)
            if not (same and all(apart(rows[row], rows[new.rows[0]], total) for row in old.rows)):
                raise ModelError(f"strategy.{new.rows[0]}.insert", f"the tower {new.tower} gets adapters from two rows.", "Keep one.")
            found[place] = replace(old, rows=(*old.rows, *new.rows))
            return
    found.append(new)


def size(target: Target, anatomy: Anatomy) -> int:
    """Numbers in what a target inserts: rank x (inputs + outputs) for each layer."""
    return sum(target.options.rank * anatomy.linear[f"{target.tower}.{layer}"] for layer in target.layers)


def insert(rows: Sequence[TuningRow], anatomy: Anatomy, family: Any, *, total: int, seed: int) -> Inserted:
    """Insert into `family` what the rows say; the first values are a function of (seed, tower), whatever was drawn before.

    Raises: ModelError as `targets` does, or where PEFT would wrap other layers than those meant.
    """
    wanted = targets(rows, anatomy, total=total)
    if not wanted:
        return Inserted()
    from peft import LoraConfig, inject_adapter_in_model  # seconds to import, and only LoRA needs it

    configs: dict[str, LoraConfig] = {}
    by_row: dict[int, tuple[str, ...]] = {}
    for target in wanted:
        tower = family.towers[target.tower]
        options = target.options
        config = LoraConfig(
            r=options.rank,
            lora_alpha=options.alpha,  # type: ignore[arg-type]
            lora_dropout=options.dropout,
            target_modules=_shortest(tower, target.layers),
            fan_in_fan_out=not isinstance(tower.get_submodule(target.layers[0]), torch.nn.Linear),
        )
        before = {name for name, _ in tower.named_parameters()}
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(derive("adapter", seed, target.tower))
            inject_adapter_in_model(config, tower)
        new = [name for name, _ in tower.named_parameters() if ".lora_" in name and name not in before]
        if {name.partition(".lora_")[0] for name in new} != set(target.layers):
            found = f"the layers of {target.tower} cannot be told apart by name."
            raise ModelError(f"strategy.{target.rows[0]}.insert", found, "Use another pattern.")
        configs[target.tower] = config
        for row in target.rows:
            by_row[row] = (*by_row.get(row, ()), *(f"{target.tower}.{name}" for name in new))
    return Inserted(configs, by_row)


def _layers(tower: str, pattern: str, anatomy: Anatomy) -> tuple[str, ...]:
    inside = (path for path in anatomy.linear if path.startswith(f"{tower}.") and matches(f"{path}.weight", pattern))
    return tuple(path.removeprefix(f"{tower}.") for path in inside)


def _shortest(tower: torch.nn.Module, layers: Sequence[str]) -> list[str]:
    """Their last names, as is usual, where these mean the same layers; else their full paths."""
    last = {layer.rpartition(".")[2] for layer in layers}
    meant = {path for path, _ in tower.named_modules() if path.rpartition(".")[2] in last}
    return sorted(last) if meant == set(layers) else list(layers)
