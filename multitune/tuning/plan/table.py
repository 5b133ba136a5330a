"""The tuning table that a recipe asks for, and what of a model moves by it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from multitune.core import catalog
from multitune.core.plan import Plan
from multitune.core.recipe import Phase, Recipe, TuningRow
from multitune.models.anatomy import Anatomy
from multitune.tuning import inserts
from multitune.tuning.plan.phases import MANY, phase_rows, rates_told
from multitune.tuning.rules import resolve, spans
from multitune.tuning.scope import LOSS


def tuning_table(recipe: Recipe, anatomy: Anatomy, *, total: int) -> list[TuningRow]:
    """The rows of the recipe's tuning table, strategy or phases; before them one for the loss's own parameters, if there are any.

    total: optimizer steps of the run.
    """
    own = [TuningRow(pattern=LOSS)] if LOSS in anatomy.left else []
    if not isinstance(recipe.strategy, tuple):
        name = "full" if recipe.strategy.name == "auto" else recipe.strategy.name
        return [*own, *catalog.find("strategy", name, recipe.strategy.options, where="strategy").build().rows(anatomy)]
    phases = phases_of(recipe)
    rows = phase_rows(phases, anatomy, total=total) if phases else [row for row in recipe.strategy if isinstance(row, TuningRow)]
    return [*own, *rows]


def phases_of(recipe: Recipe) -> list[Phase]:
    """The phases that a recipe chains; none where it has one strategy, or a table."""
    return [one for one in recipe.strategy if isinstance(one, Phase)] if isinstance(recipe.strategy, tuple) else []


def moving_names(recipe: Recipe, anatomy: Anatomy, *, total: int, unused: Collection[str] = ()) -> set[str]:
    """Public names of the tensors that move at some step of `total`, and of those that adapters are put beside."""
    table = tuning_table(recipe, anatomy, total=total)
    moving = {name for name, rows in resolve(table, anatomy, total=total).items() if spans(rows, total=total)}
    beside = {name for row in table if row.insert is not None and row.rate > 0 for name in anatomy.match(row.pattern)}
    return (moving - set(unused)) | beside


def moving_in_turn(recipe: Recipe, anatomy: Anatomy, *, total: int, unused: Collection[str] = ()) -> list[tuple[int, set[str]]]:
    """The same for each stretch of steps in which the same tensors move, with the step before which it ends."""
    table = tuning_table(recipe, anatomy, total=total)
    when = {name: spans(rows, total=total) for name, rows in resolve(table, anatomy, total=total).items() if name not in unused}
    for row in table:
        beside = anatomy.match(row.pattern) if row.insert is not None and row.rate > 0 else ()
        when |= {name: (*when.get(name, ()), *spans([row], total=total)) for name in beside}
    found: list[tuple[int, set[str]]] = []
    for stop in sorted({total, *(edge for each in when.values() for one in each for edge in (one.start, one.stop) if edge > 0)}):
        names = {name for name, each in when.items() if any(one.start < stop <= one.stop for one in each)}
        if found and found[-1][1] == names:
            found[-1] = (stop, names)
        else:
            found.append((stop, names))
    return found


def planned_table(plan: Plan) -> list[TuningRow]:
    """The tuning table that a plan states."""
    rows = [value.value for name, value in plan.values.items() if name.startswith("strategy.rows.")]
    return [TuningRow.model_validate(row) for row in rows]


@dataclass(frozen=True)
class Moves:
    """What moves in one tower, or in what lies outside them.

    shapes: of its moving tensors; of each adapter, its numbers in a row. rates: of what moves; spans: from which step to which.
    """

    name: str
    total: int
    moving: int
    inserted: int
    shapes: tuple[tuple[int, ...], ...]
    rates: tuple[float, ...]
    spans: tuple[tuple[int, int], ...]


def moves_of(table: list[TuningRow], anatomy: Anatomy, steps: int, unused: Collection[str]) -> list[Moves]:
    """For each tower, and each thing outside them, what moves by a tuning table within `steps`."""
    resolved = {name: spans(rows, total=steps) for name, rows in resolve(table, anatomy, total=steps).items()}
    moving = {name: when for name, when in resolved.items() if when and name not in unused}
    inserted = [
        (target, spans([table[row] for row in target.rows], total=steps)) for target in inserts.targets(table, anatomy, total=steps)
    ]
    result: list[Moves] = []
    for top in dict.fromkeys([*(tower.name for tower in anatomy.towers), *anatomy.left]):
        mine = {name: when for name, when in moving.items() if name.split(".")[0] == top}
        put = [(target, when) for target, when in inserted if target.tower == top and when]
        every = [one for when in (*mine.values(), *(when for _, when in put)) for one in when]
        total = sum(size for name, size in anatomy.sizes.items() if name.split(".")[0] == top)
        new = sum(inserts.size(target, anatomy) for target, _ in put)
        moved = sum(anatomy.sizes[name] for name in mine) + new
        shapes = (*(anatomy.shapes[name] for name in mine), *((inserts.size(target, anatomy),) for target, _ in put))
        rates = dict.fromkeys(one.rate for one in sorted(every, key=lambda one: (one.start, one.stop, one.rate)))  # beside whens, in time
        whens = sorted({(one.start, one.stop) for one in every})
        result.append(Moves(top, total, moved, new, shapes, tuple(rates), tuple(whens)))
    return result


def moves_table(recipe: Recipe, moves: list[Moves], steps: int) -> tuple[tuple[str, ...], ...]:
    """The same as a table for people, the first row its heading."""
    rows = [("", "parameters", "moving", "inserted", "lr", "steps")]
    for move in moves:
        rates = rates_told(move.rates, lr=recipe.train.lr) or "frozen"
        when = ", ".join("all" if one == (0, steps) else f"{one[0]:,} to {one[1]:,}" for one in move.spans) or "none"
        if len(move.spans) > MANY:
            when = f"{move.spans[0][0]:,} to {max(stop for _, stop in move.spans):,}, bit by bit"
        rows.append((move.name, f"{move.total:,}", f"{move.moving:,}", f"{move.inserted:,}", rates, when))
    return tuple(rows)
