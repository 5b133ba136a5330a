"""What the tuning room states: what moves and how fast, batch arithmetic, steps, rates, bytes, and what is doubtful about them."""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import torch

from multitune.core import catalog
from multitune.core.errors import ModelError, RecipeError
from multitune.core.finding import Finding, Severity
from multitune.core.plan import Plan, Value, stated
from multitune.core.protocols import Control, Loss, Needs, TaskPreset
from multitune.core.recipe import Recipe, TuningRow, steps_of
from multitune.data.loader import only_here
from multitune.models.anatomy import Anatomy
from multitune.tuning import adapters
from multitune.tuning.ranks import world_size
from multitune.tuning.scope import resolve, span

MIN_NEGATIVES = 64
MAX_EVALUATIONS = 10
MAX_WORKERS = 8
BYTES_PER_MOMENTS = 8
BYTES_PER_NUMBER = 4
_STATED = ("lr", "optimizer", "betas", "eps", "weight_decay", "schedule", "clip_norm", "precision", "batch_norm", "balance")


@dataclass(frozen=True)
class TuningOutline:
    """What a plan knows of the tuning."""

    values: Mapping[str, Value]
    tables: Mapping[str, tuple[tuple[str, ...], ...]]
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class Batches:
    """Batch arithmetic. rows: drawn in an epoch. batch: rows of a step. micro: rows of a forward."""

    rows: int
    batch: int
    micro: int
    ranks: int
    steps: int

    @property
    def steps_per_epoch(self) -> int:
        """The last step of an epoch may have fewer rows."""
        return math.ceil(self.rows / self.batch)

    @property
    def micro_batches(self) -> int:
        """Forwards of a full step, over all ranks."""
        return math.ceil(self.batch / self.micro)


def state(
    recipe: Recipe,
    *,
    rows: int,
    needs: Needs,
    anatomy: Anatomy,
    preset: TaskPreset,
    unused: Collection[str] = (),
    random: Collection[str] = (),
) -> TuningOutline:
    """What tuning will do.

    rows: drawn in an epoch. unused: public names that no gradient reaches. random: towers whose config makes training random.
    Raises: RecipeError, ModelError for what does not hang together.
    """
    batches = _batches(recipe, rows)
    table = tuning_table(recipe, anatomy)
    plugin = _loss_plugin(recipe, preset)
    loss: Loss = plugin.build(needs)
    moves = _moves(table, anatomy, batches.steps, unused)
    _refuse(recipe, batches, moves, loss)
    values = _strategy(recipe, table) | _loss(recipe, plugin, loss) | _train(recipe, batches, moves)
    findings = tuple(_doubts(batches, table, moves, loss, random))
    return TuningOutline(values, {"moves": _moves_table(recipe, moves, batches.steps)}, findings)


def tuning_table(recipe: Recipe, anatomy: Anatomy) -> list[TuningRow]:
    """The rows of the recipe's tuning table, or of its strategy."""
    if isinstance(recipe.strategy, tuple):
        return list(recipe.strategy)
    name = "full" if recipe.strategy.name == "auto" else recipe.strategy.name
    return catalog.find("strategy", name, recipe.strategy.options, where="strategy").build().rows(anatomy)


def moving_names(recipe: Recipe, anatomy: Anatomy, *, rows: int, unused: Collection[str] = ()) -> set[str]:
    """Public names of the tensors that move at some step, and of those that adapters are put beside. rows: drawn in an epoch."""
    total = _batches(recipe, rows).steps
    table = tuning_table(recipe, anatomy)
    moving = {name for name, row in resolve(table, anatomy).items() if row.rate > 0 and span(row, total)[0] < span(row, total)[1]}
    beside = {name for row in table if row.insert is not None and row.rate > 0 for name in anatomy.match(row.pattern)}
    return (moving - set(unused)) | beside


def planned_table(plan: Plan) -> list[TuningRow]:
    """The tuning table that a plan states."""
    rows = [value.value for name, value in plan.values.items() if name.startswith("strategy.rows.")]
    return [TuningRow.model_validate(row) for row in rows]


def loss_of(recipe: Recipe, preset: TaskPreset, needs: Needs) -> Loss:
    """The loss of a recipe, for what the data ask."""
    return _loss_plugin(recipe, preset).build(needs)


def control_of(plan: Plan) -> Control | None:
    """The control that a plan names: early stopping, if it has it."""
    options = plan["train.early_stop"]
    return catalog.find("control", "early_stop", options, where="train.early_stop").build() if options else None


def compute_threads(asked: int) -> int:
    """Compute threads of this process: as asked, or the cores that it may use, shared among the ranks."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return asked or max(1, cores // world_size())


def _loss_plugin(recipe: Recipe, preset: TaskPreset) -> catalog.Plugin:
    name = preset.loss if recipe.loss.name == "auto" else recipe.loss.name
    return catalog.find("loss", name, recipe.loss.options, where="loss")


def _batches(recipe: Recipe, rows: int) -> Batches:
    train, ranks = recipe.train, world_size()
    batch = train.batch_size
    micro = min(batch, train.micro_batch or math.ceil(batch / ranks))
    steps = train.steps or max(1, round(train.epochs * math.ceil(rows / batch)))
    return Batches(rows, batch, micro, ranks, steps)


@dataclass(frozen=True)
class Moves:
    """What moves in one tower, or in what lies outside them. rates: of what moves; starts: at which steps it starts."""

    name: str
    total: int
    moving: int
    inserted: int
    rates: tuple[float, ...]
    spans: tuple[tuple[int, int], ...]


def _moves(table: list[TuningRow], anatomy: Anatomy, steps: int, unused: Collection[str]) -> list[Moves]:
    rules = {name: row for name, row in resolve(table, anatomy).items() if name not in unused and _moves_at_all(row, steps)}
    inserted = [target for target in adapters.targets(table, anatomy) if _moves_at_all(table[target.row], steps)]
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


def _moves_at_all(row: TuningRow, steps: int) -> bool:
    start, stop = span(row, steps)
    return row.rate > 0 and start < stop


def _moves_table(recipe: Recipe, moves: list[Moves], steps: int) -> tuple[tuple[str, ...], ...]:
    rows = [("", "parameters", "moving", "inserted", "lr", "steps")]
    for move in moves:
        rates = ", ".join(f"{recipe.train.lr * rate:g}" for rate in move.rates) or "frozen"
        spans = ", ".join("all" if one == (0, steps) else f"{one[0]:,} to {one[1]:,}" for one in move.spans) or "none"
        rows.append((move.name, f"{move.total:,}", f"{move.moving:,}", f"{move.inserted:,}", rates, spans))
    return tuple(rows)


def _strategy(recipe: Recipe, table: list[TuningRow]) -> dict[str, Value]:
    origin = "recipe" if recipe.given("strategy") else "default"
    values: dict[str, Value] = {}
    if not isinstance(recipe.strategy, tuple):
        values["strategy.name"] = Value("full" if recipe.strategy.name == "auto" else recipe.strategy.name, origin)
    rows_from = "recipe" if isinstance(recipe.strategy, tuple) else "derived"
    rows = {f"strategy.rows.{place}": row.model_dump(mode="json", exclude_defaults=True) for place, row in enumerate(table)}
    return values | {name: Value(row, rows_from) for name, row in rows.items()}


def _loss(recipe: Recipe, plugin: catalog.Plugin, loss: Loss) -> dict[str, Value]:
    values = {"loss.name": Value(plugin.name, "recipe" if recipe.loss.name != "auto" else "derived")}
    for name, value in plugin.options.model_dump(mode="json").items():
        values[f"loss.{name}"] = Value(value, "recipe" if name in plugin.options.model_fields_set else "default")
    values["loss.terms"] = Value(list(loss.terms), "derived")
    values["loss.over"] = Value(loss.over, "derived", "nothing", note=_OVER[loss.over])
    return values


_OVER = {"rows": "each row alone; exact over micro-batches and ranks", "pairs": "all rows of a step together, by gradient caching"}


def _train(recipe: Recipe, batches: Batches, moves: list[Moves]) -> dict[str, Value]:
    train, moving = recipe.train, sum(move.moving for move in moves)
    given = train.given
    warmup, decay = (steps_of(value, total=batches.steps) for value in (train.warmup, train.decay))
    every = train.evaluate_every or _evaluate_every(batches)
    stop = train.early_stop.model_dump(mode="json") if train.early_stop else {}
    return {
        "train.rows": Value(batches.rows, "derived", note="drawn in an epoch"),
        "train.batch_size": Value(batches.batch, "recipe" if given("batch_size") else "default"),
        "train.micro_batch": Value(batches.micro, "recipe" if train.micro_batch else "derived"),
        "train.micro_batches": Value(batches.micro_batches, "derived", note="of a step, over all ranks"),
        "train.ranks": Value(batches.ranks, "machine"),
        "train.steps_per_epoch": Value(batches.steps_per_epoch, "derived"),
        "train.steps": Value(
            batches.steps, "recipe" if train.steps else "derived", note=f"{batches.steps / batches.steps_per_epoch:.4g} epochs"
        ),
        **stated("train", train, _STATED),
        "train.warmup_steps": Value(warmup, "derived" if isinstance(train.warmup, str) else "recipe", note=str(train.warmup)),
        "train.decay_steps": Value(decay, "derived" if isinstance(train.decay, str) else "recipe", note=str(train.decay)),
        "train.evaluate_every": Value(every, "recipe" if train.evaluate_every else "derived"),
        "train.checkpoint_every": Value(train.checkpoint_every or every, "recipe" if train.checkpoint_every else "derived", "speed"),
        "train.early_stop": Value(stop, "recipe" if given("early_stop") else "default"),
        "train.engine": Value(train.engine.name, "recipe" if given("engine") else "default"),
        "train.device": Value(device_of(recipe), "machine" if train.device == "auto" else "recipe"),
        "train.threads": Value(compute_threads(train.threads), "recipe" if train.threads else "machine"),
        "train.workers": Value(_workers(recipe), "machine" if train.workers < 0 else "recipe", "speed"),
        **stated("train", train, ("keep", "prefetch"), binds="speed"),
        "moves.parameters": Value(moving, "derived", "nothing", note=f"of {sum(move.total for move in moves):,}, and what is inserted"),
        "moves.optimizer_bytes": Value(moving * BYTES_PER_MOMENTS, "derived", "nothing", note="two moments in fp32"),
        "moves.checkpoint_bytes": Value(moving * (BYTES_PER_MOMENTS + BYTES_PER_NUMBER), "derived", "nothing", note="each"),
    }


def _evaluate_every(batches: Batches) -> int:
    epochs = batches.steps / batches.steps_per_epoch
    return min(batches.steps, batches.steps_per_epoch * max(1, math.ceil(epochs / MAX_EVALUATIONS)))


def device_of(recipe: Recipe) -> str:
    """The device that a recipe asks for, or the best that the machine has.

    Raises: RecipeError for one that the machine has not.
    """
    asked = recipe.train.device
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if asked == "auto":
        return next(name for name in ("cuda", "mps", "cpu") if there[name])
    if not there[asked]:
        raise RecipeError("train.device", f'"{asked}" is not on this machine.', "Use auto.")
    return asked


def _workers(recipe: Recipe) -> int:
    if recipe.train.workers >= 0:
        return recipe.train.workers
    cores = compute_threads(0)
    return 0 if cores <= 2 or only_here(recipe) else min(MAX_WORKERS, cores // 2)


def _refuse(recipe: Recipe, batches: Batches, moves: list[Moves], loss: Loss) -> None:
    if not any(move.moving for move in moves):
        raise ModelError("strategy", "nothing moves.", "Give a row that matches something a rate above 0.")
    if recipe.train.precision == "fp16" and device_of(recipe) == "cpu":
        raise RecipeError("train.precision", "fp16 needs a GPU.", "Use bf16 or fp32.")
    if recipe.train.batch_norm == "moving" and (batches.micro_batches > 1 or loss.over == "pairs"):
        found = "moving statistics cannot be split into micro-batches or passed twice."
        raise RecipeError("train.batch_norm", found, "Use eval, or one micro-batch and a loss over rows.")


def _doubts(batches: Batches, table: list[TuningRow], moves: list[Moves], loss: Loss, random: Collection[str]) -> Iterator[Finding]:
    restless = sorted(move.name for move in moves if move.moving and move.name in random)
    dropping = any(row.insert is not None and row.insert.options.get("dropout") for row in table)
    if batches.micro_batches > 1 and (restless or dropping):
        where = ", ".join(restless) or "adapters"
        message = f"{batches.micro_batches} micro-batches with dropout ({where}): another split gives other gradients."
        yield Finding("split-binds", Severity.INFO, "train.micro_batch", message, "The same split gives the same bits.")
    each = min(batches.batch, batches.rows)
    if loss.over == "pairs" and each < MIN_NEGATIVES:
        message = f"{each} rows a step give each row few others to be told from."
        yield Finding("few-negatives", Severity.WARNING, "train.batch_size", message, f"Use at least {MIN_NEGATIVES}.")
    if batches.batch > batches.rows:
        message = f"a batch of {batches.batch} rows is larger than the epoch of {batches.rows}; every step has {batches.rows}."
        yield Finding("batch-over-rows", Severity.WARNING, "train.batch_size", message, "Make it smaller.")
    for place, row in enumerate(table):
        start, stop = span(row, batches.steps)
        if row.rate > 0 and start >= stop:
            message = f"it would move from step {start} to {stop} of {batches.steps}: never."
            yield Finding("never-moves", Severity.WARNING, f"strategy.{place}", message, "Start it earlier.")
