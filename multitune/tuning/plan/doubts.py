"""What is refused before anything is spent, and what is doubtful."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from multitune.core.catalog import Plugin
from multitune.core.errors import ModelError, RecipeError
from multitune.core.finding import Finding, Severity
from multitune.core.protocols import Loss, TaughtLoss
from multitune.core.recipe import Recipe, TuningRow
from multitune.models.anatomy import Anatomy
from multitune.tuning.plan.batches import Batches, device_of
from multitune.tuning.plan.table import Moves
from multitune.tuning.rules import span

MIN_NEGATIVES = 64


def refuse(recipe: Recipe, batches: Batches, moves: list[Moves], loss: Loss) -> None:
    """Refuse what cannot be trained.

    Raises: ModelError where nothing moves; RecipeError for a precision or batch norm that does not go with the rest.
    """
    if not any(move.moving for move in moves):
        raise ModelError("strategy", "nothing moves.", "Give a row that matches something a rate above 0.")
    if recipe.train.precision == "fp16" and device_of(recipe) == "cpu":
        raise RecipeError("train.precision", "fp16 needs a GPU.", "Use bf16 or fp32.")
    if recipe.train.batch_norm == "moving" and (batches.micro_batches > 1 or loss.over == "pairs"):
        found = "moving statistics cannot be split into micro-batches or passed twice."
        raise RecipeError("train.batch_norm", found, "Use eval, or one micro-batch and a loss over rows.")


def refuse_scalars(loss: Plugin, anatomy: Anatomy) -> None:
    """Refuse a loss that reads a learned number of the model (its module states SCALARS) which the model has not.

    Raises: RecipeError.
    """
    single = [name.rpartition(".")[2] for name, size in anatomy.sizes.items() if size == 1 and name.split(".")[0] in anatomy.left]
    for scalar in vars(loss.module).get("SCALARS", ()):
        if not any(scalar in name for name in single):
            found = f"{loss.name} needs a learned {scalar}, which the model has not."
            raise RecipeError("loss", found, vars(loss.module).get("ADVICE", "Use another loss."))


def refuse_watched(recipe: Recipe, loss: Loss) -> None:
    """Refuse to wait for a loss that is not known where training is watched: a teacher is asked about the rows of train alone.

    Raises: RecipeError.
    """
    known = {"train.early_stop": recipe.train.early_stop, "train.plateau": recipe.train.plateau, "average": recipe.average}
    for where, asked in known.items():
        if asked is not None and asked.metric.startswith("valid/loss") and isinstance(loss, TaughtLoss):
            found = "the loss rests on a teacher, which says nothing of the validation split."
            raise RecipeError(f"{where}.metric", found, "Go by a metric, such as valid/accuracy.")


def doubts(batches: Batches, table: list[TuningRow], moves: list[Moves], loss: Loss, random: Collection[str]) -> Iterator[Finding]:
    """What a user should know before anything is spent."""
    restless = sorted(move.name for move in moves if move.moving and move.name in random)
    dropping = any(row.insert is not None and row.insert.options.get("dropout") for row in table)
    if batches.micro_batches > 1 and (restless or dropping):
        where = ", ".join(restless) or "adapters"
        message = f"{batches.micro_batches} micro-batches with dropout ({where}): another split gives other gradients."
        yield Finding("split-binds", Severity.INFO, "train.micro_batch", message, "The same split gives the same bits.")
    each = min(batches.batch, batches.rows)
    if loss.over == "pairs" and each < MIN_NEGATIVES:
        message = f"{each} rows a step give each row few others to be told from."
        memory = f", with train.micro_batch: {batches.micro} in the memory of now"
        remedy = f"Use at least train.batch_size: {MIN_NEGATIVES}{memory if batches.rows >= MIN_NEGATIVES else ', and more rows'}."
        yield Finding("few-negatives", Severity.WARNING, "train.batch_size", message, remedy)
    if batches.batch > batches.rows:
        message = f"a batch of {batches.batch} rows is larger than the epoch of {batches.rows}; every step has {batches.rows}."
        yield Finding("batch-over-rows", Severity.WARNING, "train.batch_size", message, "Make it smaller.")
    for place, row in enumerate(table):
        start, stop = span(row, batches.steps)
        if row.rate > 0 and start >= stop:
            message = f"it would move from step {start} to {stop} of {batches.steps}: never."
            yield Finding("never-moves", Severity.WARNING, f"strategy.{place}", message, "Start it earlier.")
