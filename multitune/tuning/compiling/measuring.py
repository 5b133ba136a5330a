"""What compiling costs and saves, measured on a micro-batch before the first step; nothing of it is left."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from statistics import median
from typing import Any

import torch

from multitune.core.plan import Plan
from multitune.core.protocols import Loss
from multitune.tuning.compiling import compiled_of
from multitune.tuning.gradients import Gradients, Micro
from multitune.tuning.plan.compiling import Cost
from multitune.tuning.ranks import Ranks, put
from multitune.tuning.scope import Scope

REPEATS = 3


def measured(family: Any, loss: Loss, scope: Scope, plan: Plan, micro: Micro, *, device: torch.device) -> Cost:
    """Run both passes over micro-batches of the first step (of a loss over pairs two, where there are two), uncompiled and compiled.

    Weights, buffers and gradients are as they were; the family is left in eval mode.
    Raises: Fault where this machine cannot compile the blocks.
    """
    chosen = micro[: 2 if loss.over == "pairs" else 1]
    gradients = Gradients(family, loss, plan["run.seed"], Ranks(device=device), plan["train.precision"])
    buffers = {name: tensor.clone() for name, tensor in scope.buffers().items()}
    scope.enter(0)

    def passes() -> None:
        work = gradients.work(0, chosen)
        for position in work.order():
            work.backward(position)

    def free() -> None:
        for entry in scope.entries:
            entry.parameter.grad = None

    def taken(run: Callable[[], None]) -> float:
        free()
        _finished(device)
        began = time.perf_counter()
        run()
        _finished(device)
        return time.perf_counter() - began

    compiled = compiled_of(plan, family, device)
    seconds: list[tuple[float, list[float]]] = []
    for inside in (nullcontext(), compiled.step(0)):
        with inside:
            seconds.append((taken(passes), [taken(passes) for _ in range(REPEATS)]))
    free()
    scope.leave()
    for name, tensor in scope.buffers().items():
        put(buffers[name], into=tensor)
    (_, eager), (first, faster) = seconds
    each = max(len(chosen), 1)
    return Cost(median(eager) / each, median(faster) / each, max(first - median(faster), 0.0), each)


def _finished(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
