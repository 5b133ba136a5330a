"""The one loop: resume, step, say, look, keep; on Accelerate for devices and processes.

One process or several (torchrun), a CPU or a GPU. Of Accelerate it takes the device and the process group; the loader, the
accumulation count and, on one process, the optimizer never pass through it.
"""

from __future__ import annotations

import gc
from collections.abc import Generator
from contextlib import closing, contextmanager
from typing import Any

import torch

from multitune.core import catalog
from multitune.core.ledger import Ledger
from multitune.core.plan import Plan
from multitune.core.protocols import Control, Loss
from multitune.core.rundir import RunDir
from multitune.data.loader import Loader
from multitune.tuning.engines.accelerate.loop import Loop, Outcome, Watch
from multitune.tuning.events import Bar
from multitune.tuning.plan import control_of
from multitune.tuning.ranks import Ranks, world_size
from multitune.tuning.scope import Scope
from multitune.tuning.signals import Asked


class Options(catalog.Options):
    """No options; the plan has them all."""


def build(options: Options) -> Accelerate:
    """The engine."""
    return Accelerate()


class Accelerate:
    """Fits a family to what a loader gives, as a plan says."""

    def fit(
        self,
        *,
        loader: Loader,
        family: Any,
        scope: Scope,
        loss: Loss,
        plan: Plan,
        run: RunDir,
        watch: Watch,
        ledger: Ledger | None = None,
        control: Control | None = None,
    ) -> Outcome:
        """Train from the run's last checkpoint, or from the start, to the plan's last step or an early stop.

        watch: measures the family as it is, on the validation split; called on the main process only. ledger: sealed with each
        checkpoint. control: by default that of `train.early_stop`, if the plan has one.
        Raises: NonFiniteError before the weights are touched; StateError if there are checkpoints and none verifies; Fault if
        one cannot be written; Stopped on Ctrl-C or SIGTERM, after a checkpoint.
        """
        ranks = processes(plan["train.device"])
        torch.set_num_threads(plan["train.threads"])
        family.to(ranks.device)
        if isinstance(loss, torch.nn.Module):
            loss.to(ranks.device)
        loop = Loop(family, scope, loss, plan, run, ranks, watch, ledger or Ledger(), control or control_of(plan))
        total = scope.total
        with closing(loop), _unfrozen(), Asked() as asked, Bar(total=total, done=loop.done, main=ranks.main) as bar:
            if loop.done:
                bar.say(f"went on from {loop.place()}")
            for finding in loop.tracking.findings:
                bar.say(finding.line())
            loop.look(asked)
            batches = loader.steps(loop.done, total) if loop.done < total and not loop.stopped_by else iter(())
            gc.freeze()  # what was made so far stays: no collection between two steps looks through it
            for batch in batches:
                report = loop.step(batch)
                del batch  # its rows need not stay while the next are made
                bar.show(step=loop.done, rate=loop.rate, loss=report.loss)
                loop.heed(asked)
                if loop.look(asked):
                    bar.tell(loop.figures)
                if loop.stopped_by:
                    break
            return loop.finish(asked)


@contextmanager
def _unfrozen() -> Generator[None]:
    """Afterwards the collector looks at everything again."""
    try:
        yield
    finally:
        gc.unfreeze()


def processes(device: str = "cpu") -> Ranks:
    """This process among those that the launcher started; device: `cpu`, `cuda` or `mps`, for one process as it says."""
    rank, world, mine = 0, 1, torch.device(device)
    if world_size() > 1:
        from accelerate import PartialState  # one process needs none of it, and would wait for its import

        state = PartialState(cpu=device == "cpu")
        rank, world = state.process_index, state.num_processes
        mine = torch.device(str(state.device)) if world > 1 else mine
    if mine.type == "cuda":
        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.benchmark = False
    return Ranks(rank, world, mine)


__all__ = ["Accelerate", "Options", "Outcome", "Watch", "build", "processes"]
