"""What a plan knows of lengths: the grouping that a recipe asks for, and how much of what is computed will be padding."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from multitune.core.errors import RecipeError, did_you_mean, one_of
from multitune.core.finding import Finding, Severity
from multitune.core.plan import Value
from multitune.core.protocols import Preparer
from multitune.core.randomness import generator
from multitune.core.recipe import Recipe
from multitune.core.recipe.bucket import BucketSpec
from multitune.data.bucketing.grouping import Grouping
from multitune.data.bucketing.lengths import Lengths, measured, tightened
from multitune.data.loader import order_of
from multitune.data.order import Order
from multitune.data.split import Examples

LOOKED_AT = 256  # rows that are measured where nothing is grouped
COUNTED = 500  # micro-batches whose padding is counted
MUCH = 0.3

Over = Literal["rows", "pairs"]


@dataclass(frozen=True)
class Outlook:
    """grouping: None where rows stay as they are drawn. order: that of the run. padding: the share expected, None where no length varies.

    ungrouped: the share without a grouping. lengths: of all rows, or of those looked at.
    """

    order: Order
    grouping: Grouping | None = None
    lengths: Lengths | None = None
    padding: float | None = None
    ungrouped: float | None = None

    def values(self, recipe: Recipe) -> dict[str, Value]:
        """What the plan states of `train`."""
        train, made = recipe.train, dict[str, Value]()
        if self.lengths is None or self.padding is None or self.ungrouped is None:
            return made
        if self.grouping is not None:
            asked = train.bucket or BucketSpec()
            note = "no row goes to another batch: with a loss over pairs, that would choose its negatives by length"
            forced = self.grouping.window != asked.window
            made["train.bucket"] = Value(
                {"by": asked.by, "window": self.grouping.window},
                "recipe" if train.bucket is not None and not forced else "derived",
                note=note if forced else "",
            )
            made["train.lengths"] = Value(self.lengths.digest, "derived", note=_told(self.lengths))
        if train.batch_tokens:
            made["train.batch_tokens"] = Value(train.batch_tokens, "recipe", note="padded, all streams together, at most")
        looked = "" if self.grouping is not None else f", {len(self.lengths.real)} rows looked at"
        note = f"share of the tokens computed, expected{looked}"
        note += f"; {self.ungrouped:.3f} as rows are drawn" if self.grouping is not None else ""
        made["train.padding"] = Value(round(self.padding, 3), "derived", "nothing", note)
        return made

    def findings(self, recipe: Recipe, *, over: Over) -> Iterator[Finding]:
        """What a user should know of padding."""
        if self.padding is None or self.ungrouped is None:
            return
        within = over == "pairs" or (self.grouping is not None and self.grouping.window == 1)
        if self.grouping is None and self.padding > MUCH:
            what = "train.bucket=auto with a train.micro_batch" if within else "train.bucket=auto"
            found = f"{self.padding:.0%} of the tokens that the model would compute are padding."
            yield Finding("padding", Severity.INFO, "train.bucket", found, f"Set {what}: rows of like length then go together.")
        elif self.grouping is not None and within and not recipe.train.micro_batch:
            found = "rows stay in the batch that they were drawn into, and each batch is one micro-batch: nothing is grouped."
            yield Finding("bucket-idle", Severity.WARNING, "train.bucket", found, "State a train.micro_batch, or a larger window.")


def look(recipe: Recipe, examples: Examples, preparer: Preparer, *, over: Over) -> Outlook:
    """Measure rows as far as the recipe's batches ask for it: all of them where rows are grouped, else a few.

    Raises: RecipeError for a grouping that cannot be.
    """
    train = recipe.train
    asked = train.bucket or (BucketSpec() if train.batch_tokens else None)
    plain = order_of(examples, seed=recipe.seed, batch_size=train.batch_size, micro_batch=train.micro_batch, balance=train.balance)
    if asked is None:
        places = sorted(generator("looked", recipe.seed).permutation(len(examples))[:LOOKED_AT].tolist())
        few = measured(examples, preparer, places)
        if few is None:
            return Outlook(plain)
        drawn = replace(plain, num_rows=len(places), weights=None, labels=None)
        share = padding(drawn, few)
        return Outlook(plain, None, few, share, share)
    if train.batch_tokens and over == "pairs":
        found = "the loss is over pairs: batches of so many tokens would give long rows fewer others to be told from."
        raise RecipeError("train.batch_tokens", found, "Use train.batch_size with train.bucket and a train.micro_batch.")
    lengths = measured(examples, preparer if train.batch_tokens else tightened(preparer))
    if lengths is None:
        where = "train.batch_tokens" if train.batch_tokens else "train.bucket"
        raise RecipeError(where, "no part has rows of different length for its tower.", "Leave it out.")
    grouping = Grouping(lengths.padded, _keys(asked, lengths), 1 if over == "pairs" else asked.window, train.batch_tokens)
    _refuse_too_long(grouping, examples)
    order = replace(plain, grouping=grouping)
    ungrouped = replace(plain, batch_size=max(1, round(order.rows_per_epoch / order.steps_of(0)))) if train.batch_tokens else plain
    return Outlook(order, grouping, lengths, padding(order, lengths), padding(ungrouped, lengths))


def padding(order: Order, lengths: Lengths) -> float:
    """The share of padding among the tokens of the first epoch, or of the first micro-batches of a long one; on one rank."""
    real = whole = count = 0
    for _, _, tasks in order.tasks(0, order.steps_of(0)):
        for task in tasks:
            rows = list(task.places)
            real += int(lengths.real[rows].sum())
            whole += len(rows) * int(lengths.padded[rows].max(0).sum())
            count += 1
        if count >= COUNTED:
            break
    return 1 - real / whole if whole else 0.0


def _keys(asked: BucketSpec, lengths: Lengths) -> np.ndarray:
    if asked.by == "auto":
        return lengths.padded.sum(1, dtype=np.int64)
    if asked.by not in lengths.streams:
        found = f'"{asked.by}" is no stream whose length varies; there is {one_of(lengths.streams)}.'
        raise RecipeError("train.bucket.by", found, did_you_mean(asked.by, list(lengths.streams)) or "Use auto.")
    return lengths.padded[:, lengths.streams.index(asked.by)].astype(np.int64)


def _refuse_too_long(grouping: Grouping, examples: Examples) -> None:
    """Raises: RecipeError for a row that is longer than a batch may be."""
    whole = grouping.padded.sum(1, dtype=np.int64)
    longest = int(whole.argmax())
    if grouping.budget and whole[longest] > grouping.budget:
        found = f"the row {examples.ids[longest]} alone takes {whole[longest]:,} tokens, and a batch may have {grouping.budget:,}."
        raise RecipeError("train.batch_tokens", found, "Raise it, or shorten rows by the part's max_length.")


def _told(lengths: Lengths) -> str:
    spans = (f"{name} {real.min():,} to {real.max():,}" for name, real in zip(lengths.streams, lengths.real.T, strict=True))
    return f"of {len(lengths.real):,} rows: {', '.join(spans)}"
