"""The tuning table that a recipe asks for, and what of a model moves by it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from multitune.core import catalog
from multitune.core.plan import Plan
from multitune.core.recipe import Recipe, TuningRow
from multitune.models.anatomy import Anatomy
from multitune.tuning import adapters
from multitune.tuning.plan.batches import batch_arithmetic
from multitune.tuning.scope import LOSS, resolve, span


def tuning_table(recipe: Recipe, anatomy: Anatomy) -> list[TuningRow]:
    """The rows of the recipe's tuning table, or of its strategy; before them one for the loss's own parameters, if there are any."""
    own = [TuningRow(pattern=LOSS)] if LOSS in anatomy.left else []
    if isinstance(recipe.strategy, tuple):
        return [*own, *recipe.strategy]
    name = "full" if recipe.strategy.name == "auto" else recipe.strategy.name
    return [*own, *catalog.find("strategy", name, recipe.strategy.options, where="strategy").build().rows(anatomy)]


def moving_names(recipe: Recipe, anatomy: Anatomy, *, rows: int, unused: Collection[str] = ()) -> set[str]:
    """Public names of the tensors that move at some step, and of those that adapters are put beside. rows: drawn in an epoch."""
    total = batch_arithmetic(recipe, rows).steps
    table = tuning_table(recipe, anatomy)
    moving = {name for name, row in resolve(table, anatomy).items() if row.rate > 0 and span(row, total)[0] < span(row, total)[1]}
    beside = {name for row in table if row.insert is not None and row.rate > 0 for name in anatomy.match(row.pattern)}
    return (moving - set(unused)) | beside


def planned_table(plan: Plan) -> list[TuningRow]:
    """The tuning table that a plan states."""
    rows = [value.value for name, value in plan.values.items() if name.startswith("strategy.rows.")]
    return [TuningRow.model_validate(row) for row in rows]


@dataclass(frozen=True)
class Moves:
    """What moves in one tower, or in what lies outside them. rates: of what moves; starts: at which steps it starts."""

    name: str
    total: int
    moving: int
    inserted: int
    rates: tuple[float, ...]
    spans: tuple[tuple[int, int], ...]


def moves_of(table: list[TuningRow], anatomy: Anatomy, steps: int, unused: Collection[str]) -> list[Moves]:
    """For each tower, and each thing outside them, what moves by a tuning table within `steps`."""
    rules = {name: row for name, row in resolve(table, anatomy).items() if name not in unused and moves_at_all(row, steps)}
    inserted = [target for target in adapters.targets(table, anatomy) if moves_at_all(table[target.row], steps)]
    result: list[Moves] = []
    for top in dict.fromkeys([*(tower.name for tower in anatomy.towers), *anatomy.left]):
        mine = {name: row for name, row in rules.items() if name.split(".")[0] == top}
        put = [target for target in inserted if target.tower == top]
        rows = [*mine.values(), *(table[target.row] for target in put)]
        total = sum(size for name, size in anatomy.sizes.items() if name.split(".")[0] == top)
        new = sum(adapters.size(target, anatomy) for target in put)
        moving = sum(anatomy.sizes[name] for name in mine) + new
        spans = tuple(sorted({span(row, steps) for row in rows}))
        result.append(Moves(top, total, moving, new, tuple(sorted({row.rate for row in rows})), spans))
    return result


def moves_at_all(row: TuningRow, steps: int) -> bool:
    """Whether a row moves anything within `steps`."""
    start, stop = span(row, steps)
    return row.rate > 0 and start < stop


def moves_table(recipe: Recipe, moves: list[Moves], steps: int) -> tuple[tuple[str, ...], ...]:
    """The same as a table for people, the first row its heading."""
    rows = [("", "parameters", "moving", "inserted", "lr", "steps")]
    for move in moves:
        rates = ", ".join(f"{recipe.train.lr * rate:g}" for rate in move.rates) or "frozen"
        spans = ", ".join("all" if one == (0, steps) else f"{one[0]:,} to {one[1]:,}" for one in move.spans) or "none"
        rows.append((move.name, f"{move.total:,}", f"{move.moving:,}", f"{move.inserted:,}", rates, spans))
    return tuple(rows)
