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

FILE = "compile.json"  # in the run: what is known of it since its first start, and whether that measured it
WHOLE = "; measured with all blocks running, of which the run leaves out those whose features it keeps"


def weighed(line: Line, steps: Steps, run: RunDir, ranks: Ranks) -> Plan:
    """The plan of a line with what compiling costs and saves, on the main process; what binds stays. All ranks come here.

    Raises: Fault where this machine cannot compile the blocks.
    """
    from multitune.tuning.plan.compiling import as_cost, asked, remember, remembered, told

    plan = line.planned.plan
    if not asked(plan):
        return plan
    kept = run.read_json(FILE) or {} if ranks.main else {}
    cost = as_cost(kept) or remembered(plan) if ranks.main else None
    (unknown,) = ranks.from_main([int(cost is None)])
    if unknown:
        with closing(cast("Generator[StepBatches]", steps.steps(0, 1))) as first:
            micro = next(first).micro
        cost = ranks.on_main(lambda: measured(line, micro, ranks))
        if cost is not None:
            remember(plan, cost)
    if cost is None:
        return plan
    measures = bool(unknown or kept.get("measures"))
    run.write_json(FILE, {**vars(cost), "measures": measures})
    made = told(plan, cost, measures=measures)
    write_plan(made, run)
    return made


def proven(line: Line, micro: Sequence[tuple[int, Batch]], *, keeps: bool) -> Plan:
    """The plan of a line with what compiling costs and saves on the first of these micro-batches, which are one step's.

    keeps: the run will keep features. It then has other blocks to run than were run here, and what was measured is told, not remembered.
    """
    import torch

    from multitune.tuning.plan.compiling import asked, at_once, remember, told
    from multitune.tuning.ranks import Ranks
    from multitune.verbs.train import teaching

    plan, data = line.planned.plan, line.planned.data
    if not asked(plan):
        return plan
    chosen = micro[: at_once(plan)]
    taught = [(place, teaching.of_batch(line.loss, data.needs, data.examples["train"], batch)) for place, batch in chosen]
    cost = measured(line, taught, Ranks(device=torch.device(plan["train.device"])))
    if not keeps:
        remember(plan, cost)
    return told(plan, cost, measures=keeps, aside=WHOLE if keeps else "")


def measured(line: Line, micro: Sequence[tuple[int, Batch]], ranks: Ranks) -> Cost:
    """What compiling costs and saves on these micro-batches of the first step."""
    import torch

    from multitune.tuning.compiling.measuring import measured as taken
    from multitune.verbs.train.storing import as_in_training

    as_in_training(line, ranks)
    if isinstance(line.loss, torch.nn.Module):
        line.loss.to(ranks.device)
    return taken(line.family, line.loss, line.scope, line.planned.plan, micro, device=ranks.device)
