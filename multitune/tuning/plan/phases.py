"""Phases: strategies one after the other, as rows of one tuning table, and the step ranges in which the same things move."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from multitune.core import catalog
from multitune.core.errors import ModelError, RecipeError
from multitune.core.recipe import Phase, Recipe, TuningRow, steps_of
from multitune.models.anatomy import Anatomy
from multitune.tuning import inserts
from multitune.tuning.rules import Span, resolve, span, spans

MANY = 3


@dataclass(frozen=True)
class Range:
    """A phase of a recipe in optimizer steps: start inclusive, stop exclusive."""

    name: str
    start: int
    stop: int


@dataclass(frozen=True)
class Movement:
    """What moves between two borders of a run.

    towers: by tower, or thing outside them: the numbers that move, how many of them are inserted, and the rates.
    """

    start: int
    stop: int
    towers: Mapping[str, tuple[int, int, tuple[float, ...]]]


def ranges(phases: Sequence[Phase], *, total: int) -> list[Range]:
    """The steps of each phase in a run of `total`.

    Raises: ModelError for phases that overlap or leave steps to none, or a phase of no steps.
    """
    found: list[Range] = []
    for place, phase in enumerate(phases):
        where, before = f"strategy.{place}", found[-1].stop if found else 0
        after = phases[place + 1].start if place + 1 < len(phases) else None
        start = before if phase.start is None else steps_of(phase.start, total=total)
        wanted = phase.stop if phase.stop is not None else after
        stop = total if wanted is None else min(total, steps_of(wanted, total=total))
        if start < before:
            what = f"the phase {phase.name} starts at step {start:,}, and the one before it stops at step {before:,}: they overlap."
            raise ModelError(f"{where}.start", what, "Leave start out: a phase starts where the one before it stops.")
        if start > before:
            what = f"steps {before:,} to {start:,} belong to no phase: nothing would move."
            raise ModelError(f"{where}.start", what, "Leave start out: a phase starts where the one before it stops.")
        if start >= stop:
            what = f"the phase {phase.name} has no steps (it would start at step {start:,} and stop at step {stop:,} of {total:,})."
            raise ModelError(where, what, "Give it a later stop, stop the phase before it earlier, or train for more steps.")
        found.append(Range(phase.name, start, stop))
    if found and found[-1].stop < total:
        what = f"steps {found[-1].stop:,} to {total:,} belong to no phase: nothing would move."
        raise ModelError(f"strategy.{len(found) - 1}.stop", what, "Leave out the last phase's stop, or train for fewer steps.")
    return found


def phase_rows(phases: Sequence[Phase], anatomy: Anatomy, *, total: int) -> list[TuningRow]:
    """One tuning table for all phases; steps and shares inside a phase are of that phase.

    Raises: ModelError as `ranges` does, and for what a phase's strategy refuses.
    """
    table: list[TuningRow] = []
    for place, (phase, steps) in enumerate(zip(phases, ranges(phases, total=total), strict=True)):
        strategy = catalog.find("strategy", phase.name, phase.options, where=f"strategy.{place}").build()
        for row in strategy.rows(anatomy):
            start, stop = span(row, steps.stop - steps.start)
            update = {"start": steps.start + start, "stop": None if steps.start + stop == total else steps.start + stop}
            table.append(row.model_copy(update=update))
    return table


def movements(table: Sequence[TuningRow], anatomy: Anatomy, *, total: int, unused: Collection[str]) -> list[Movement]:
    """What moves between each two borders of a run, in the order of time; steps in which nothing moves are there too."""
    moving = {name: spans(rows, total=total) for name, rows in resolve(table, anatomy, total=total).items() if name not in unused}
    put = [(target, spans([table[row] for row in target.rows], total=total)) for target in inserts.targets(table, anatomy, total=total)]
    whens = [*moving.values(), *(when for _, when in put)]
    borders = sorted({0, total, *(edge for when in whens for one in when for edge in (one.start, one.stop))})
    tops = dict.fromkeys([*(tower.name for tower in anatomy.towers), *anatomy.left])
    found: list[Movement] = []
    for start, stop in pairwise(borders):
        numbers: dict[str, list[tuple[int, int, float]]] = {top: [] for top in tops}
        for name, when in moving.items():
            numbers[name.split(".")[0]] += [(anatomy.sizes[name], 0, one.rate) for one in _at(when, start)]
        for target, when in put:
            size = inserts.size(target, anatomy)
            numbers[target.tower] += [(size, size, one.rate) for one in _at(when, start)]
        towers = {
            top: (sum(a for a, _, _ in each), sum(b for _, b, _ in each), tuple(sorted({rate for _, _, rate in each})))
            for top, each in numbers.items()
            if each
        }
        found.append(Movement(start, stop, towers))
    return found


def refuse_stillness(found: Sequence[Movement], phases: Sequence[Range]) -> None:
    """Refuse a run with steps in which nothing moves.

    Raises: ModelError naming the phase, or the steps.
    """
    for movement in found:
        if movement.towers:
            continue
        here = next(((place, one) for place, one in enumerate(phases) if one.start <= movement.start < one.stop), None)
        steps = f"steps {movement.start:,} to {movement.stop:,}"
        if here is None:
            raise ModelError("strategy", f"in {steps} nothing moves.", "Start a row earlier, stop one later, or train for fewer steps.")
        place, one = here
        inside = "" if (one.start, one.stop) == (movement.start, movement.stop) else f" in {steps}"
        what = f"the phase {one.name} (steps {one.start:,} to {one.stop:,}) moves nothing{inside}."
        raise ModelError(f"strategy.{place}", what, "Let it move something, or leave it out.")


def refuse_never(table: Sequence[TuningRow], *, total: int) -> None:
    """Refuse a row of a strategy that would move at no step.

    Raises: ModelError naming what it means and when it would start.
    """
    for row in table:
        start, stop = span(row, total)
        if row.rate > 0 and start >= stop:
            what = f"{row.pattern} would move from step {start:,} to {stop:,} of {total:,}: never, in a phase of no steps."
            raise ModelError("strategy", what, "Start it earlier, or train for more steps.")


def refuse_plateau(recipe: Recipe, found: Sequence[Movement]) -> None:
    """Refuse a control that waits for a phase to bring forward where there is none.

    Raises: RecipeError.
    """
    if recipe.train.plateau is not None and len(found) < 2:
        what = "the same things move from the first step to the last: there is no phase to bring forward."
        raise RecipeError("train.plateau", what, "Choose progressive, lp_ft or phases, or leave it out.")


def phases_table(found: Sequence[Movement], phases: Sequence[Range], *, lr: float) -> tuple[tuple[str, ...], ...]:
    """The phases as a table for people, the first row its heading; empty where the same things move from the first step to the last."""
    if len(found) < 2:
        return ()
    rows = [("", "steps", "moving", "parameters", "inserted", "lr")]
    for place, movement in enumerate(found):
        name = next((f" {one.name}" for one in phases if one.start <= movement.start < one.stop), "")
        number, steps = f"{place + 1}{name}", f"{movement.start:,} to {movement.stop:,}"
        for top, (size, inserted, rates) in movement.towers.items():
            rows.append((number, steps, top, f"{size:,}", f"{inserted:,}", rates_told(rates, lr=lr)))
            number, steps = "", ""
    return tuple(rows)


def rates_told(rates: Sequence[float], *, lr: float) -> str:
    """Learning rates in a line: each, or where there are many from which to which."""
    if len(rates) > MANY:
        return f"{lr * min(rates):.3g} to {lr * max(rates):.3g}"
    return ", ".join(f"{lr * rate:g}" for rate in rates)


def _at(when: Sequence[Span], step: int) -> list[Span]:
    return [one for one in when if one.start <= step < one.stop]
