"""What the tuning room states: what moves and how fast, batch arithmetic, steps, rates, bytes, and what is doubtful about them."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from multitune.core import catalog
from multitune.core.finding import Finding
from multitune.core.plan import Plan, Value, stated
from multitune.core.protocols import Control, Loss, Needs, TaskPreset
from multitune.core.recipe import Recipe, TrainSpec, TuningRow, steps_of
from multitune.data.bucketing.outlook import Outlook
from multitune.models.anatomy import Anatomy
from multitune.tuning import averaging
from multitune.tuning.events import tracking
from multitune.tuning.plan.allocating import allocator_value, set_allocator
from multitune.tuning.plan.batches import Batches, batch_arithmetic, compute_threads, device_of, loader_workers
from multitune.tuning.plan.compiling import compile_value
from multitune.tuning.plan.doubts import doubts, refuse, refuse_scalars, refuse_watched
from multitune.tuning.plan.optimizing import optimizer_plugin, optimizer_values, state_bytes
from multitune.tuning.plan.phases import movements, phases_table, ranges, refuse_never, refuse_plateau, refuse_stillness
from multitune.tuning.plan.regularising import pulls, reference_bytes, regulariser_values
from multitune.tuning.plan.table import Moves, moves_of, moves_table, moving_in_turn, moving_names, phases_of, planned_table, tuning_table
from multitune.tuning.scope import beside

MAX_EVALUATIONS = 10
BYTES_PER_NUMBER = 4
WATCHING = ("train.early_stop", "train.plateau", "average.choice")
_STATED = ("precision", "batch_norm", "balance")
_OVER = {"rows": "each row alone; exact over micro-batches and ranks", "pairs": "all rows of a step together, by gradient caching"}


@dataclass(frozen=True)
class TuningOutline:
    """What a plan knows of the tuning. anatomy: of the model, and of the loss where it has parameters of its own."""

    anatomy: Anatomy
    values: Mapping[str, Value]
    tables: Mapping[str, tuple[tuple[str, ...], ...]]
    findings: tuple[Finding, ...]


def state(
    recipe: Recipe,
    *,
    rows: int,
    needs: Needs,
    anatomy: Anatomy,
    preset: TaskPreset,
    unused: Collection[str] = (),
    random: Collection[str] = (),
    outlook: Outlook | None = None,
    way: Callable[[str], Literal["higher", "lower"]] | None = None,
) -> TuningOutline:
    """What tuning will do.

    rows: drawn in an epoch. unused: public names that no gradient reaches. random: towers whose config makes training random.
    outlook: what is known of rows' lengths. way: how a figure is better, where a recipe does not say.
    Raises: RecipeError, ModelError for what does not hang together.
    """
    batches = batch_arithmetic(recipe, rows, outlook.order if outlook else None)
    plugin = _loss_plugin(recipe, preset, needs)
    loss: Loss = plugin.build(needs)
    anatomy = beside(anatomy, loss)
    table = tuning_table(recipe, anatomy, total=batches.steps)
    moves = moves_of(table, anatomy, batches.steps, unused)
    refuse(recipe, batches, moves, loss)
    refuse_scalars(plugin, anatomy)
    refuse_watched(recipe, loss)
    phases = ranges(phases_of(recipe), total=batches.steps)
    if phases or not isinstance(recipe.strategy, tuple):
        refuse_never(table, total=batches.steps)
    when = movements(table, anatomy, total=batches.steps, unused=unused)
    refuse_stillness(when, phases)
    refuse_plateau(recipe, when)
    values = (
        _strategy(recipe, table) | _loss(recipe, plugin, loss) | _train(recipe, batches, moves, outlook.values(recipe) if outlook else {})
    )
    values |= compile_value(recipe, anatomy, device=values["train.device"].value)
    moving, every = sum(move.moving for move in moves), values["train.evaluate_every"].value
    values |= averaging.state(recipe, steps=batches.steps, every=every, moving=moving, table=table)
    values |= reference_bytes(recipe, anatomy, moves)
    values |= _directed(values, way) if way is not None else {}
    findings = (*doubts(batches, table, moves, loss, random), *pulls(recipe, anatomy), *tracking.missing(recipe.train.trackers))
    findings += tuple(outlook.findings(recipe, over=loss.over)) if outlook else ()
    told = {"moves": moves_table(recipe, moves, batches.steps), "strategy": phases_table(when, phases, lr=recipe.train.lr)}
    return TuningOutline(anatomy, values, {name: rows for name, rows in told.items() if rows}, findings)


def _directed(values: Mapping[str, Value], way: Callable[[str], Literal["higher", "lower"]]) -> dict[str, Value]:
    """What goes by a figure, with the way in which it is better."""
    known = {name: values[name] for name in WATCHING if name in values}
    return {
        name: replace(stated, value={**stated.value, "mode": "max" if way(stated.value["metric"]) == "higher" else "min"})
        for name, stated in known.items()
        if stated.value and stated.value["mode"] == "auto"
    }


def _strategy(recipe: Recipe, table: list[TuningRow]) -> dict[str, Value]:
    origin = "recipe" if recipe.given("strategy") else "default"
    values: dict[str, Value] = {}
    if not isinstance(recipe.strategy, tuple):
        values["strategy.name"] = Value("full" if recipe.strategy.name == "auto" else recipe.strategy.name, origin)
    phases = phases_of(recipe)
    for place, phase in enumerate(phases):
        values[f"strategy.phases.{place}"] = Value(phase.model_dump(mode="json", exclude_defaults=True), "recipe")
    rows_from = "recipe" if isinstance(recipe.strategy, tuple) and not phases else "derived"
    rows = {f"strategy.rows.{place}": row.model_dump(mode="json", exclude_defaults=True) for place, row in enumerate(table)}
    return values | {name: Value(row, rows_from) for name, row in rows.items()}


def _loss(recipe: Recipe, plugin: catalog.Plugin, loss: Loss) -> dict[str, Value]:
    values = {"loss.name": Value(plugin.name, "recipe" if recipe.loss.name != "auto" else "derived")}
    for name, value in plugin.options.model_dump(mode="json").items():
        given = name in plugin.options.model_fields_set
        if given or value is not None:  # an option that is off by default is not told
            values[f"loss.{name}"] = Value(value, "recipe" if given else "default")
    values["loss.terms"] = Value(list(loss.terms), "derived")
    values["loss.over"] = Value(loss.over, "derived", "nothing", note=_OVER[loss.over])
    return values


def _train(recipe: Recipe, batches: Batches, moves: list[Moves], lengths: Mapping[str, Value]) -> dict[str, Value]:
    train, moving = recipe.train, sum(move.moving for move in moves)
    optimizer = optimizer_plugin(recipe)
    state = state_bytes(optimizer, (shape for move in moves for shape in move.shapes))
    given, mean = train.given, "on average: batches are filled by tokens" if train.batch_tokens else ""
    warmup, decay = (steps_of(value, total=batches.steps) for value in (train.warmup, train.decay))
    every = train.evaluate_every or _evaluate_every(batches)
    stop = train.early_stop.model_dump(mode="json") if train.early_stop else {}
    return {
        "train.rows": Value(batches.rows, "derived", note="drawn in an epoch"),
        "train.batch_size": Value(batches.batch, "recipe" if given("batch_size") else "derived" if mean else "default", note=mean),
        "train.micro_batch": Value(batches.micro, "recipe" if train.micro_batch else "derived", note="" if train.micro_batch else mean),
        "train.micro_batches": Value(batches.micro_batches, "derived", note="of a step, over all ranks"),
        **lengths,
        "train.ranks": Value(batches.ranks, "machine"),
        "train.steps_per_epoch": Value(batches.steps_per_epoch, "derived", note="of the first; it differs with the epoch" if mean else ""),
        "train.steps": Value(
            batches.steps, "recipe" if train.steps else "derived", note=f"{batches.steps / batches.steps_per_epoch:.4g} epochs"
        ),
        **stated("train", train, ("lr",)),
        **optimizer_values(recipe, optimizer),
        **stated("train", train, ("schedule",)),
        **regulariser_values(recipe),
        **stated("train", train, _STATED),
        "train.warmup_steps": Value(warmup, "derived" if isinstance(train.warmup, str) else "recipe", note=str(train.warmup)),
        "train.decay_steps": Value(decay, "derived" if isinstance(train.decay, str) else "recipe", note=str(train.decay)),
        "train.evaluate_every": Value(every, "recipe" if train.evaluate_every else "derived"),
        "train.checkpoint_every": Value(train.checkpoint_every or every, "recipe" if train.checkpoint_every else "derived", "speed"),
        "train.early_stop": Value(stop, "recipe" if given("early_stop") else "default"),
        **(stated("train", train, ("plateau",)) if train.plateau else {}),
        "train.engine": Value(train.engine.name, "recipe" if given("engine") else "default"),
        "train.device": Value(device_of(recipe), "machine" if train.device == "auto" else "recipe"),
        "train.threads": Value(compute_threads(train.threads), "recipe" if train.threads else "machine"),
        "train.allocator": allocator_value(recipe, device=device_of(recipe)),
        "train.workers": Value(loader_workers(recipe), "machine" if train.workers < 0 else "recipe", "speed"),
        **stated("train", train, ("keep", "prefetch"), binds="speed"),
        **stated("train", train, tuple(name for name in ("inputs_memory", "statistics_every") if given(name)), binds="speed"),
        **tracking.state(train.trackers),
        "moves.parameters": Value(moving, "derived", "nothing", note=f"of {sum(move.total for move in moves):,}, and what is inserted"),
        "moves.optimizer_bytes": Value(state, "derived", "nothing", note=optimizer.module.STATE),
        "moves.checkpoint_bytes": Value(state + moving * BYTES_PER_NUMBER, "derived", "nothing", note="each"),
    }


def _evaluate_every(batches: Batches) -> int:
    epochs = batches.steps / batches.steps_per_epoch
    return min(batches.steps, batches.steps_per_epoch * max(1, math.ceil(epochs / MAX_EVALUATIONS)))


def loss_of(recipe: Recipe, preset: TaskPreset, needs: Needs) -> Loss:
    """The loss of a recipe, for what the data ask."""
    return _loss_plugin(recipe, preset, needs).build(needs)


def loss_name(recipe: Recipe, preset: TaskPreset, modalities: Iterable[str]) -> str:
    """The loss that the recipe names, or its task's for answers of these modalities: `several` where they ask for different ones."""
    asked = {preset.losses.get(modality, preset.loss) for modality in modalities} or {preset.loss}
    return recipe.loss.name if recipe.loss.name != "auto" else asked.pop() if len(asked) == 1 else "several"


def control_of(plan: Plan) -> Control | None:
    """The control that a plan names: early stopping, if it has it."""
    options = plan["train.early_stop"]
    return catalog.find("control", "early_stop", options, where="train.early_stop").build() if options else None


def statistics_every(plan: Plan) -> int:
    """How many steps lie between two that are looked at more closely; a plan states it where its recipe does."""
    stated_by_plan = plan.values.get("train.statistics_every")
    return TrainSpec().statistics_every if stated_by_plan is None else stated_by_plan.value


def watched_figures(plan: Plan) -> list[str]:
    """The figures of the validation split by which a run is controlled, or by which it chooses among weights."""
    known = (plan.values.get(name) for name in WATCHING)
    return [str(stated.value["metric"]) for stated in known if stated is not None and stated.value]


def plateau_of(plan: Plan) -> Control | None:
    """The control that brings phases forward, if the plan names one."""
    value = plan.values.get("train.plateau")
    return catalog.find("control", "plateau", value.value, where="train.plateau").build() if value is not None else None


def _loss_plugin(recipe: Recipe, preset: TaskPreset, needs: Needs) -> catalog.Plugin:
    """The loss of these answers with its options."""
    name = loss_name(recipe, preset, [need.modality for need in needs.answers.values()])
    return catalog.find("loss", name, recipe.loss.options, where="loss")


__all__ = [
    "Batches",
    "Moves",
    "TuningOutline",
    "compute_threads",
    "control_of",
    "device_of",
    "loss_name",
    "loss_of",
    "moving_in_turn",
    "moving_names",
    "planned_table",
    "plateau_of",
    "set_allocator",
    "state",
    "statistics_every",
    "tuning_table",
    "watched_figures",
]
