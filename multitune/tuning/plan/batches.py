"""Batch arithmetic and the machine: rows, steps, micro-batches, ranks; device, threads, workers."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass

import torch

from multitune.core.errors import RecipeError
from multitune.core.recipe import Recipe
from multitune.data.loader import only_here
from multitune.data.order import Order
from multitune.tuning.ranks import world_size

MAX_WORKERS = 8


@dataclass(frozen=True)
class Batches:
    """Batch arithmetic. rows: drawn in an epoch. batch: rows of a step; where it is filled by tokens, the mean. micro: rows of a forward.

    steps_per_epoch: of the first one; its last step may have fewer rows.
    """

    rows: int
    batch: int
    micro: int
    ranks: int
    steps: int
    steps_per_epoch: int

    @property
    def micro_batches(self) -> int:
        """Forwards of a full step, over all ranks."""
        return math.ceil(self.batch / self.micro)


def batch_arithmetic(recipe: Recipe, rows: int, order: Order | None = None) -> Batches:
    """Rows, steps and micro-batches as the recipe asks for them.

    rows: drawn in an epoch. order: of the run; where batches are filled by tokens, it knows how many there are.
    """
    train, ranks = recipe.train, world_size()
    if order is not None and train.batch_tokens:
        of_epoch, steps = order.steps_of(0), train.steps or max(1, order.steps_in(train.epochs))
        batch = max(1, round(rows / of_epoch))
    else:
        batch, of_epoch = train.batch_size, math.ceil(rows / train.batch_size)
        steps = train.steps or max(1, round(train.epochs * of_epoch))
    micro = min(batch, train.micro_batch or math.ceil(batch / ranks))
    return Batches(rows, batch, micro, ranks, steps, of_epoch)


def compute_threads(asked: int) -> int:
    """Compute threads of this process: as asked, or the cores that it may use, shared among the ranks."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return asked or max(1, cores // world_size())


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


def loader_workers(recipe: Recipe) -> int:
    """Loader processes: as asked, or by the cores."""
    if recipe.train.workers >= 0:
        return recipe.train.workers
    cores = compute_threads(0)
    return 0 if cores <= 2 or only_here(recipe) else min(MAX_WORKERS, cores // 2)
