"""What compiling costs and saves in a run: measured once, kept in its folder, told in its plan."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, cast

from multitune.core.plan import Plan
from multitune.core.rundir import RunDir
from multitune.verbs.train.keeping import write_plan

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from multitune.core.protocols import Batch
    from multitune.data.loader import StepBatches
    from multitune.tuning.plan.compiling import Cost
    from multitune.tuning.ranks import Ranks
    from multitune.tuning.teaching import Steps
    from multitune.verbs.train.line import Line

FILE = "compile.json"  # in the run: what was measured at its first start


def weighed(line: Line, steps: Steps, run: RunDir, ranks: Ranks) -> Plan:
    """The plan of a line with what compiling costs and saves, on the main process; what binds stays. All ranks come here.

    Raises: Fault where this machine cannot compile the blocks.
    """
    from multitune.tuning.plan.compiling import as_cost, asked, remember, remembered, told

    plan = line.planned.plan
    if not asked(plan):
        return plan
    cost = as_cost(run.read_json(FILE)) or remembered(plan) if ranks.main else None
    (unknown,) = ranks.from_main([int(cost is None)])
    if unknown:
        with closing(cast("Generator[StepBatches]", steps.steps(0, 1))) as first:
            micro = next(first).micro
        cost = ranks.on_main(lambda: measured(line, micro, ranks))
    if cost is None:
        return plan
    remember(plan, cost)
    run.write_json(FILE, vars(cost))
    made = told(plan, cost)
    write_plan(made, run)
    return made


def proven(line: Line, micro: Sequence[tuple[int, Batch]]) -> Plan:
    """The plan of a line with what compiling costs and saves on these micro-batches, remembered for its run."""
    import torch

    from multitune.tuning.plan.compiling import asked, remember, told
    from multitune.tuning.ranks import Ranks

    plan = line.planned.plan
    if not asked(plan):
        return plan
    cost = measured(line, micro, Ranks(device=torch.device(plan["train.device"])))
    remember(plan, cost)
    return told(plan, cost)


def measured(line: Line, micro: Sequence[tuple[int, Batch]], ranks: Ranks) -> Cost:
    """What compiling costs and saves on these micro-batches of the first step."""
    import torch

    from multitune.tuning.compiling.measuring import measured as taken
    from multitune.verbs.train.storing import as_in_training

    as_in_training(line, ranks)
    if isinstance(line.loss, torch.nn.Module):
        line.loss.to(ranks.device)
    return taken(line.family, line.loss, line.scope, line.planned.plan, micro, device=ranks.device)
