"""Batch arithmetic and the machine: rows, steps, micro-batches, ranks; device, threads, workers."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass

import torch

from multitune.core.errors import RecipeError
from multitune.core.recipe import Recipe
from multitune.data.loader import only_here
from multitune.tuning.ranks import world_size

MAX_WORKERS = 8


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


def batch_arithmetic(recipe: Recipe, rows: int) -> Batches:
    """Rows, steps and micro-batches as the recipe asks for them. rows: drawn in an epoch."""
    train, ranks = recipe.train, world_size()
    batch = train.batch_size
    micro = min(batch, train.micro_batch or math.ceil(batch / ranks))
    steps = train.steps or max(1, round(train.epochs * math.ceil(rows / batch)))
    return Batches(rows, batch, micro, ranks, steps)


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
