"""What a plan says of averaging, and what is refused before anything is spent; nothing where a recipe asks for none."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any

from multitune.core.errors import RecipeError
from multitune.core.plan import Plan, Value
from multitune.core.recipe import AverageSpec, Recipe, TuningRow, steps_of
from multitune.models.anatomy import Anatomy
from multitune.tuning.averaging.choice import Choice
from multitune.tuning.averaging.interpolation import pretrained
from multitune.tuning.averaging.soup import Soup

BYTES_PER_NUMBER = 4
LINEAR = ("lora",)  # inserts whose effect is a product with a matrix that begins as zeros


def state(recipe: Recipe, *, steps: int, every: int, moving: int, table: Sequence[TuningRow]) -> dict[str, Value]:
    """Values for what is averaged. steps: of the run. every: steps between evaluations. moving: numbers that move.

    Raises: RecipeError for what never begins, has too few evaluations, or lacks a figure to choose by.
    """
    asked = recipe.average
    _refuse(recipe, asked, steps, every, table)
    values: dict[str, Value] = {}
    if asked.ema is not None:
        start = steps_of(asked.ema.start, total=steps)
        ema = {"decay": asked.ema.decay, "start": start, "warmup": asked.ema.warmup}
        values["average.ema"] = Value(ema, "recipe", note="what is evaluated and kept is the average")
        told = "more for each checkpoint, and in memory"
        values["average.bytes"] = Value(moving * BYTES_PER_NUMBER, "derived", "nothing", told)
    if asked.soup is not None:
        which = f"the last {asked.soup.last}" if asked.soup.last else f"the best {asked.soup.best}"
        soup = asked.soup.model_dump(mode="json", exclude_defaults=True)
        values["average.soup"] = Value(soup, "recipe", note=f"checkpoints of evaluations are kept: {which}")
    if asked.interpolate is not None:
        shares = list(asked.interpolate.tuned)
        note = "validation picks one" if len(shares) > 1 else "share of the tuned weights, at the end"
        values["average.interpolate"] = Value({"tuned": shares}, "recipe", note=note)
    if asked.chooses:
        by = _choice(recipe)
        values["average.choice"] = Value({"metric": by.metric, "mode": by.mode}, "recipe" if asked.metric else "derived")
    return values


def choice_of(plan: Plan) -> Choice | None:
    """What validation chooses by, if it has something to choose."""
    value = plan.values.get("average.choice")
    return Choice(**value.value) if value is not None else None


def soup_of(plan: Plan) -> Soup | None:
    """The soup that a plan names, if it does."""
    value = plan.values.get("average.soup")
    return Soup(**({"last": 0, "best": 0, "greedy": False} | value.value), choice=choice_of(plan)) if value is not None else None


def refuse_all_new(recipe: Recipe, family: Any, anatomy: Anatomy, moving: Collection[str]) -> None:
    """Refuse to go back where there is nothing to go back to. moving: public names; an insert stands as what it is put beside.

    Raises: RecipeError.
    """
    if recipe.average.interpolate is None:
        return
    read = pretrained(family)
    if not any(id(family.get_parameter(path)) in read for path, name in anatomy.names.items() if name in moving):
        found = "nothing that moves was read from a pretrained model, so there is nothing to go back to."
        raise RecipeError("average.interpolate", found, "Leave it out (average.interpolate=null).")


def _refuse(recipe: Recipe, asked: AverageSpec, steps: int, every: int, table: Sequence[TuningRow]) -> None:
    if asked.ema is not None and steps_of(asked.ema.start, total=steps) >= steps:
        raise RecipeError("average.ema.start", f"step {asked.ema.start} of {steps}: it would never begin.", "Start it earlier.")
    if asked.soup is not None:
        evaluations, wanted = math.ceil(steps / every), asked.soup.last or asked.soup.best
        if wanted > evaluations:
            found = f"{wanted} evaluations are to be averaged, and the run has {evaluations} (every {every} of {steps} steps)."
            raise RecipeError("average.soup", found, "Evaluate more often (train.evaluate_every), or average fewer.")
    if (asked.soup is not None or asked.interpolate is not None) and recipe.train.batch_norm == "moving":
        found = "the moving statistics of a batch norm belong to the weights of their step, not to a mean of weights."
        raise RecipeError("average", found, "Use train.batch_norm=eval, or average.ema alone.")
    if asked.chooses and not asked.metric and recipe.train.early_stop is None:
        found = "validation is to choose, and no figure says by what."
        raise RecipeError("average.metric", found, "Name one, such as valid/accuracy.")
    if asked.metric and not asked.chooses:
        found = f'"{asked.metric}" would have no effect: validation has nothing to choose.'
        raise RecipeError("average.metric", found, "Leave it out, or give soup.best, soup.greedy or several interpolate.tuned.")
    for place, row in enumerate(table if asked.interpolate is not None else ()):
        if row.insert is not None and row.rate > 0 and (row.insert.name not in LINEAR or row.insert.options.get("dora")):
            found = f"{row.insert.name} (strategy row {place}) has no way back that is a straight line in the weights."
            raise RecipeError("average.interpolate", found, "Leave it out, or insert plain lora.")


def _choice(recipe: Recipe) -> Choice:
    stop = recipe.train.early_stop
    if stop is not None and recipe.average.metric in ("", stop.metric):
        return Choice(stop.metric, stop.mode)
    return Choice(recipe.average.metric)
