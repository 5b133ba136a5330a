"""Steps of micro-batches in an order that is a pure function, made here or in worker processes, bad rows quarantined."""

from __future__ import annotations

import copy
import json
import time
import uuid
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from typing import Any

import numpy as np

from multitune.core import catalog, store
from multitune.core.errors import DataError, LossBudgetError, PluginError
from multitune.core.ledger import Ledger, over_budget
from multitune.core.plan import Plan
from multitune.core.protocols import Augmentation, Batch, Preparer, Sample
from multitune.core.recipe import Component, PartSpec, Recipe
from multitune.data.bucketing.grouping import Grouping
from multitune.data.bucketing.lengths import tightened
from multitune.data.order import Order, Task
from multitune.data.split import Examples
from multitune.data.workers import STEP_BYTES, Memo, Note, Pool, Shelf, Spill, Work, joined, prepared, read_sample, single

MEMO_BYTES = 1 << 30
DEVICE_STEP_BYTES = 1 << 30  # where steps run on a device: they are short there, and reading again would show
TIMEOUT_SECONDS = 120.0
HERE = uuid.uuid4().hex  # of this process
shared_memo = Memo(MEMO_BYTES)  # of this process: runs after each other, and evaluations between, prepare the same files once


@dataclass(frozen=True)
class StepBatches:
    """This rank's share of one optimizer step: pairs of a micro-batch's number in the step and the batch.

    A micro-batch of which no row could be read is not there. wait_seconds: how long the caller waited for them. micro: good until the
    next step is asked for; those of a large step that are not in memory are read each time that they are asked for (`workers.held`).
    """

    step: int
    epoch: int
    micro: Sequence[tuple[int, Batch]]
    wait_seconds: float


class Loader:
    """The steps of a run over the rows of a split; its whole state is the number of the step.

    batch_size: rows of a step over all ranks. micro_batch: rows of one forward; 0: the whole batch of a rank. balance: an answer
    whose classes are drawn equally often. grouping: which rows come together; one with a budget takes the place of batch_size.
    augment: part -> augmentations, in order. memo_bytes: for what is prepared once; 0 keeps nothing.
    timeout: seconds after which a silent worker counts as hung. gather: gives every rank the texts of all; called once a step, so that what
    happened to rows is known, and judged, on all ranks alike. compared: parts of which batches say which rows hold the same.
    views, told: as `Work` has them. step_bytes: of a step's inputs that stay in memory.
    """

    def __init__(
        self,
        examples: Examples,
        preparer: Preparer,
        *,
        seed: int,
        batch_size: int,
        micro_batch: int = 0,
        rank: int = 0,
        world: int = 1,
        workers: int = 0,
        prefetch: int = 2,
        balance: str = "",
        grouping: Grouping | None = None,
        ledger: Ledger | None = None,
        max_loss: float = 1.0,
        augment: Mapping[str, Sequence[Augmentation]] | None = None,
        memo_bytes: int = MEMO_BYTES,
        timeout: float = TIMEOUT_SECONDS,
        gather: Callable[[Sequence[str]], Sequence[str]] = list,
        compared: Sequence[str] = (),
        views: int = 0,
        told: Mapping[str, str] | None = None,
        step_bytes: int = STEP_BYTES,
    ) -> None:
        if not len(examples):
            raise DataError("data", "the split to train on has no rows.", "Give it rows.")
        self.examples = examples
        self.ledger = ledger if ledger is not None else Ledger()
        micro = micro_batch or (0 if grouping is not None and grouping.budget else -(-batch_size // world))
        self._order = order_of(examples, seed=seed, batch_size=batch_size, micro_batch=micro, balance=balance, grouping=grouping)
        steps = {part: tuple(given) for part, given in (augment or {}).items() if given}
        self._tight = grouping is not None and grouping.tight
        self._work = Work(examples, self._tightened(preparer), seed, steps, memo_bytes, tuple(compared), views, told or {})
        self._memo = shared_memo if memo_bytes == MEMO_BYTES else Memo(memo_bytes)
        self._rank, self._world = rank, world
        self._workers, self._prefetch, self._timeout = workers, prefetch, timeout
        self._budget, self._gather = Budget(examples, self.ledger, max_loss), gather
        self._step_bytes = step_bytes
        self._pool: Pool | None = None

    def over(self, preparer: Preparer, *, held: bool = False) -> Loader:
        """The same steps of the same rows, prepared by another. held: its rows are small and repeat, so they may be kept."""
        made = copy.copy(self)
        made._work, made._pool = replace(self._work, preparer=self._tightened(preparer), held=held), None
        return made

    def _tightened(self, preparer: Preparer) -> Preparer:
        return tightened(preparer) if self._tight else preparer

    @classmethod
    def of(
        cls,
        examples: Examples,
        preparer: Preparer,
        *,
        recipe: Recipe,
        plan: Plan,
        ledger: Ledger,
        world: int = 1,
        rank: int = 0,
        gather: Callable[[Sequence[str]], Sequence[str]] = list,
        compared: Sequence[str] = (),
        grouping: Grouping | None = None,
    ) -> Loader:
        """The loader that a recipe and its plan ask for.

        Raises: PluginError where loader processes are to use a plug-in that is only in this process's memory.
        """
        planned = plan.values.get("train.workers")
        workers = int(planned.value) if planned is not None else recipe.train.workers
        if workers > 0 and (lost := only_here(recipe)):
            found = f"{workers} loader processes cannot find {lost}, which was registered in this process's memory only."
            raise PluginError("train.workers", found, "Give it as a file (--plugin FILE), or use train.workers=0.")
        on_cpu = "train.device" not in plan.values or plan["train.device"] == "cpu"
        as_planned = "train.micro_batch" in plan.values and not recipe.train.batch_tokens
        return cls(
            examples,
            preparer,
            seed=recipe.seed,
            batch_size=recipe.train.batch_size,
            micro_batch=int(plan["train.micro_batch"]) if as_planned else recipe.train.micro_batch,
            grouping=grouping,
            rank=rank,
            world=world,
            workers=max(workers, 0),
            prefetch=recipe.train.prefetch,
            balance=recipe.train.balance,
            ledger=ledger,
            max_loss=recipe.data.max_loss,
            augment=augmentations(recipe.data.inputs),
            gather=gather,
            compared=compared,
            views=recipe.features.views,
            told=_told(recipe.data.inputs),
            step_bytes=_step_bytes(recipe.train.inputs_memory, on_cpu=on_cpu),
        )

    @property
    def rows_per_epoch(self) -> int:
        """Rows drawn in an epoch."""
        return self._order.rows_per_epoch

    @property
    def steps_per_epoch(self) -> int:
        """Steps of the first epoch; the last one may have fewer rows."""
        return self._order.steps_of(0)

    def order(self, epoch: int) -> np.ndarray:
        """The places of the examples in the order of an epoch."""
        return np.concatenate(self._order.batches(epoch))

    def first_asked(self, stop: int, *, start: int = 0) -> list[tuple[int, int]]:
        """What steps `start` up to, not including, `stop` read, on all ranks, in the order in which they do: places and views of them."""
        seen: dict[tuple[int, int], None] = {}
        views = self._work.views if self._work.augment else 1
        for _, epoch, places in self._order.steps(start, stop):
            view = self._work.view(epoch) if views > 1 else 0
            seen |= dict.fromkeys((place, view) for place in places.tolist())
            if len(seen) == len(self.examples) * max(views, 1):
                break
        return [*seen]

    def sample(self, place: int, view: int) -> Sample:
        """The sample in a place as a step gives it to the preparer; of a fixed number of views, this one.

        Raises: BadPart for a value that cannot be its part.
        """
        read = self.examples.sample(place)
        return self._work.augmented(read, view, self._memo) if self._work.views else read

    def steps(self, start: int, stop: int) -> Generator[StepBatches]:
        """Steps `start` up to, not including, `stop`; starting anywhere gives what an uninterrupted run would have had.

        Raises: LossBudgetError when too many rows cannot be read; HungError, Fault for workers that hang or die.
        """
        self.close()
        if self._workers:
            self._pool = Pool(self._work, workers=self._workers, window=self._prefetch, timeout=self._timeout)
            made = self._pool.run(lambda: (task for _, _, tasks in self._tasks(start, stop) for task in tasks))
        else:
            made = single(self._work, (task for _, _, tasks in self._tasks(start, stop) for task in tasks), self._memo)
        spill = Spill(store.cache_root())
        try:
            for step, epoch, tasks in self._tasks(start, stop):
                began, shelf = time.perf_counter(), Shelf(spill, self._step_bytes)
                done = [(task.micro, shelf.put(task.micro, next(made))) for task in tasks]
                self._budget.take(self._of_all_ranks((number, note) for number, one in done for note in one.notes))
                for error in (one.error for _, one in done if one.error is not None):
                    raise error
                yield StepBatches(step, epoch, shelf.micro(), time.perf_counter() - began)
                del done, shelf  # or the last step's rows would stay beside the next's
        finally:
            self.close()

    def _of_all_ranks(self, notes: Iterable[tuple[int, Note]]) -> list[Note]:
        """The notes of a step's micro-batches on all ranks, in the order in which one rank would have met them."""
        told = self._gather([json.dumps([number, place, *astuple(note)]) for place, (number, note) in enumerate(notes)])
        return [Note(*rest) for _, _, *rest in sorted(json.loads(text) for text in told)]

    def close(self) -> None:
        """End the worker processes."""
        if self._pool is not None:
            self._pool.stop()
            self._pool = None

    def _tasks(self, start: int, stop: int) -> Iterator[tuple[int, int, list[Task]]]:
        return self._order.tasks(start, stop, rank=self._rank, world=self._world)


class Budget:
    """Counts the rows of a split that were lost, and stops the run when they are too many."""

    def __init__(self, examples: Examples, ledger: Ledger, max_loss: float) -> None:
        self._rows, self._ledger, self._max_loss = len(examples), ledger, max_loss
        self._lost = ledger.lost() & set(examples.ids) if ledger.lost() else set[str]()

    def take(self, notes: Sequence[Note]) -> None:
        """Take down what happened to rows.

        Raises: LossBudgetError if more than `max_loss` of the rows are lost.
        """
        for note in notes:
            self._ledger.record(id=note.id, fate=note.fate, part=note.part, cause=note.cause, source=note.source)
            if note.fate != "quarantined":
                continue
            self._lost.add(note.id)
            if over_budget(len(self._lost), rows=self._rows, share=self._max_loss):
                raise LossBudgetError(
                    "data.max_loss",
                    f"{len(self._lost)} of {self._rows} rows cannot be read, over the share {self._max_loss:g}; the last is {note.id}, "
                    f"{note.part}: {note.cause}.",
                    "Mend the rows that the ledger names, or raise data.max_loss.",
                )


def batches(
    examples: Examples,
    preparer: Preparer,
    *,
    size: int,
    memo: Memo | None = None,
    ledger: Ledger | None = None,
    max_loss: float = 1.0,
    compared: Sequence[str] = (),
) -> Iterator[tuple[list[Sample], Batch]]:
    """The rows of a split in order, nothing shuffled or augmented: samples and their batch; rows that cannot be read are left out.

    Raises: LossBudgetError when too many rows cannot be read.
    """
    memo = memo if memo is not None else shared_memo
    budget = Budget(examples, ledger if ledger is not None else Ledger(), max_loss)
    for start in range(0, len(examples), size):
        samples: list[Sample] = []
        rows = []
        notes: list[Note] = []
        for place in range(start, min(start + size, len(examples))):
            sample = read_sample(examples, place, notes)
            row = None if sample is None else prepared(sample, preparer, memo, notes)
            if sample is not None and row is not None:
                samples.append(sample)
                rows.append(row)
        budget.take(notes)
        if rows:
            yield samples, joined(preparer, rows, samples, compared)


def only_here(recipe: Recipe) -> str:
    """The first plug-in, as people call it, that making batches takes and that no other process can find; empty: there is none."""
    data = recipe.data
    sources = [entry.source for entry in data.entries] + list(data.split.sources.values()) + list(data.join.sources if data.join else ())
    wanted = [("family", recipe.model.name), *(("tower", word) for word in _words(recipe.model.options))]
    wanted += [("modality", spec.modality) for spec in data.parts.values()] + [("source", source.name) for source in sources]
    wanted += [("augmentation", step.name) for spec in data.parts.values() for step in spec.augment]
    return next((f'the {kind} "{name}"' for kind, name in catalog.only_in_memory(wanted)), "")


def _words(options: Any) -> Iterator[str]:
    """Every text among the values of nested options."""
    if isinstance(options, str):
        yield options
    elif isinstance(options, Mapping):
        yield from (word for inner in options.values() for word in _words(inner))


def order_of(examples: Examples, *, seed: int, batch_size: int, micro_batch: int, balance: str, grouping: Grouping | None = None) -> Order:
    """The order in which a run takes the rows of its train split."""
    return Order(
        num_rows=len(examples),
        seed=seed,
        batch_size=batch_size,
        micro_batch=micro_batch,
        weights=examples.weights,
        labels=examples.column(balance) if balance else None,
        grouping=grouping,
    )


def augmentations(parts: Mapping[str, PartSpec]) -> dict[str, tuple[Augmentation, ...]]:
    """The augmentations of each part, built.

    Raises: PluginError for one that is not known; DataError for one of another modality.
    """
    return {
        name: tuple(_augmentation(name, n, spec, c) for n, c in enumerate(spec.augment)) for name, spec in parts.items() if spec.augment
    }


def _step_bytes(asked: int, *, on_cpu: bool) -> int:
    """Bytes of a step's inputs that stay in memory, of the recipe's MiB."""
    if asked >= 0:
        return asked << 20
    return STEP_BYTES if on_cpu else DEVICE_STEP_BYTES


def _told(parts: Mapping[str, PartSpec]) -> dict[str, str]:
    """Part -> a hash of what is done to it, and of who brought that; what is only in memory is equal in this process alone."""
    told: dict[str, str] = {}
    for name, spec in parts.items():
        brought = [catalog.brought_by("augmentation", step.name) for step in spec.augment]
        lost = catalog.only_in_memory(("augmentation", step.name) for step in spec.augment)
        told[name] = store.key(
            {"steps": [step.model_dump(mode="json") for step in spec.augment], "by": brought, "in": HERE if lost else ""}
        )
    return told


def _augmentation(name: str, number: int, spec: PartSpec, component: Component) -> Augmentation:
    where = f"data.parts.{name}.augment.{number}"
    built: Augmentation = catalog.find("augmentation", component.name, component.options, where=where).build()
    if built.modality != spec.modality:
        raise DataError(where, f"{component.name} is for the modality {built.modality}, the part is {spec.modality}.", "Choose another.")
    return built
