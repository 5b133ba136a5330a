"""Penalties, clipping and drift: what the plan states of them where a recipe asks for any, and what a plan asks for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from multitune.core.errors import RecipeError, one_of
from multitune.core.finding import Finding, Severity
from multitune.core.plan import Plan, Value, stated
from multitune.core.recipe import Recipe, TrainSpec
from multitune.models.anatomy import Anatomy
from multitune.tuning.plan.table import Moves
from multitune.tuning.regularisers.penalties import Penalties
from multitune.tuning.regularisers.start import Start
from multitune.tuning.scope import Scope

FIELDS = ("l1", "l2", "l2_sp", "drift", "clip_value", "checkpoint_activations")
BYTES_PER_NUMBER = 4


def regulariser_values(recipe: Recipe) -> dict[str, Value]:
    """The clipping, and of the rest what a recipe states: what is off is not told."""
    train = recipe.train
    values = stated("train", train, ("clip_norm",))
    if train.clip_value:
        values["train.clip_norm"] = Value(0.0, "derived", note="clip_value is stated")
    return values | stated("train", train, tuple(name for name in FIELDS if getattr(train, name)))


def reference_bytes(recipe: Recipe, anatomy: Anatomy, moves: Sequence[Moves]) -> dict[str, Value]:
    """The memory of a copy of the towers' own weights, where l2_sp or drift keeps one.

    Raises: RecipeError where l2_sp has nothing to pull.
    """
    train = recipe.train
    if not (train.l2_sp or train.drift):
        return {}
    towers = {tower.name for tower in anatomy.towers}
    numbers = sum(move.moving - move.inserted for move in moves if move.name in towers)
    if not numbers and train.l2_sp:
        found = "l2_sp pulls towers' own weights to where they started, and none of them moves."
        raise RecipeError("train.l2_sp", found, "Leave it out, or let them move.")
    note = "a copy of where the towers started" + (", beside them" if train.l2_sp else "")
    return {"moves.reference_bytes": Value(numbers * BYTES_PER_NUMBER, "derived", "nothing", note)}


def pulls(recipe: Recipe, anatomy: Anatomy) -> Iterator[Finding]:
    """What pulls in two directions or counts twice, and towers that know no blocks to compute again."""
    train = recipe.train
    plain = [tower.name for tower in anatomy.towers if not tower.blocks]
    if train.checkpoint_activations and plain:
        message = f"no blocks were found in {one_of(plain)}: what it holds for the way back is kept, unless its model has a way of its own."
        yield Finding("kept-activations", Severity.INFO, "train.checkpoint_activations", message)
    if train.balance and "weights" in recipe.loss.options:
        message = f"train.balance draws the classes of {train.balance} equally often, and loss.weights weighs classes besides."
        yield Finding("weighed-twice", Severity.WARNING, "loss.weights", message, "Take one of the two.")
    if train.l2_sp and (train.weight_decay or train.l2):
        message = "l2_sp pulls towards where the towers started, and weight_decay or l2 towards zero."
        yield Finding("two-pulls", Severity.INFO, "train.l2_sp", message, "The paper leaves the other out: train.weight_decay=0.")


def regulariser(plan: Plan, name: str) -> Any:
    """What a plan says of a regulariser; one that it does not name is off."""
    told = plan.values.get(f"train.{name}")
    return getattr(TrainSpec(), name) if told is None else told.value


def regularisers_of(plan: Plan, scope: Scope) -> tuple[Penalties, Start | None]:
    """The penalties that a plan asks for, and where the towers start, if it asks for that."""
    l1, l2, l2_sp = (regulariser(plan, name) for name in ("l1", "l2", "l2_sp"))
    start = Start.of(scope, on_device=bool(l2_sp)) if l2_sp or regulariser(plan, "drift") else None
    return Penalties(l1, l2, l2_sp, start or Start({})), start
