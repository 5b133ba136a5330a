"""Everything between a plan and its first step."""

from __future__ import annotations

from collections.abc import Collection, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from multitune.core.finding import Finding, Severity
from multitune.core.ledger import Ledger
from multitune.core.rundir import RunDir
from multitune.verbs.plan import Planned

if TYPE_CHECKING:
    from multitune.core.protocols import Batch, Family, Loss, Preparer
    from multitune.data.loader import Loader
    from multitune.data.split import Examples
    from multitune.models.anatomy import Anatomy
    from multitune.models.replay import Settled
    from multitune.tuning.ranks import Ranks
    from multitune.tuning.scope import Scope
    from multitune.verbs.train.stages import Stages

CUTS = "cuts.json"  # in the run's folder


@dataclass(frozen=True)
class Line:
    """Everything between a plan and its first step: the model, what may move in it, the loss, the rows.

    stages: what is read from the store in place of computing it, where something is.
    """

    planned: Planned
    family: Family
    anatomy: Anatomy
    scope: Scope
    loss: Loss
    loader: Loader
    stages: Stages | None = None

    @classmethod
    def start(cls, planned: Planned, *, ledger: Ledger, ranks: Ranks) -> Line:
        """Load the weights, decide what may move, and open the loader."""
        from multitune.data.loader import Loader
        from multitune.models import anatomy as anatomies
        from multitune.models.layers.recomputing import recompute
        from multitune.models.load import Weights
        from multitune.models.plan import build_family
        from multitune.tuning import scope as scopes
        from multitune.tuning.plan import loss_of, planned_table, set_allocator
        from multitune.tuning.plan.regularising import regulariser

        recipe, plan = planned.recipe, planned.plan
        set_allocator(plan)
        family = build_family(recipe, planned.data.needs, Weights("pretrained", seed=recipe.seed))
        anatomy, loss = anatomies.find(family), loss_of(recipe, planned.preset, planned.data.needs)
        scope = scopes.apply(
            planned_table(plan),
            anatomy,
            family,
            total_steps=plan["train.steps"],
            seed=recipe.seed,
            batch_norm=plan["train.batch_norm"],
            unused=planned.model.unused,
            loss=loss,
        )
        if regulariser(plan, "checkpoint_activations"):
            recompute(family.towers)
        loader = Loader.of(
            planned.data.examples["train"],
            family.preparer,
            recipe=recipe,
            plan=plan,
            ledger=ledger,
            world=ranks.world,
            rank=ranks.rank,
            gather=ranks.gather_texts,
            compared=compared(loss, family),
            grouping=planned.grouping,
        )
        return cls(planned, family, anatomy, scope, loss, loader)

    def cuts(self, moving: Collection[str] | None = None, *, asked: Sequence[str] = (), where_possible: bool = False) -> Settled:
        """The cuts under which nothing of this moves (nothing that moves in this run), proven on made-up rows, as `settle` has them."""
        from multitune.models.replay import settle

        names = {entry.name for entry in self.scope.entries} if moving is None else moving
        still = self.planned.plan["train.batch_norm"]
        return settle(self.family, names, asked=asked, batch_norm=still, where_possible=where_possible)

    def watched_loss(self, rows: Examples, *, ranks: Ranks) -> dict[str, float]:
        """The loss of training on the validation split, `valid/loss`, where a control or a choice goes by it; else nothing."""
        from multitune.data.loader import batches
        from multitune.tuning.plan import watched_figures
        from multitune.tuning.step import held_out

        plan = self.planned.plan
        if not any(figure.startswith("valid/loss") for figure in watched_figures(plan)):
            return {}
        size = plan["train.batch_size"] if self.loss.over == "pairs" else plan["train.micro_batch"]
        if self.stages is not None:
            self.stages.fill(rows)
        with self.running() as preparer:
            made = batches(rows, preparer, size=size, compared=compared(self.loss, self.family))
            found = held_out(self.family, self.loss, (batch for _, batch in made), ranks=ranks)
        return {f"valid/{name}": value for name, value in found.items()}

    @contextmanager
    def running(self) -> Generator[Preparer]:
        """Inside, the family runs on what is kept; gives the preparer of rows that it then takes."""
        if self.stages is None:
            yield self.family.preparer
            return
        with self.stages.running() as preparer:
            yield preparer

    def reached(self, batch: Batch) -> tuple[set[str], float]:
        """The public names of the tensors that one forward and backward of `batch` gives a gradient, and the loss."""
        from multitune.tuning.step import reached

        return reached(self.family, self.loss, self.scope, batch)


def compared(loss: Loss, family: Family) -> tuple[str, ...]:
    """The parts of which batches say which rows hold the same: those that a loss over pairs brings together."""
    return tuple(family.needs.parts) if loss.over == "pairs" else ()


def prove_cuts(line: Line, run: RunDir) -> tuple[Finding, ...]:
    """Prove the run's cuts once, and keep what was found; the findings of those that do not hold."""
    kept = run.read_json(CUTS)
    if kept is None:
        settled = line.cuts()
        keep_cuts(settled.lines(), settled.findings, run)
        return settled.findings
    return tuple(Finding(**(finding | {"severity": Severity(finding["severity"])})) for finding in kept["findings"])


def keep_cuts(lines: Sequence[str], findings: Sequence[Finding], run: RunDir) -> None:
    """Keep what was found of the run's cuts, for people and for its next start."""
    run.write_json(CUTS, {"cuts": [*lines], "findings": [finding.to_json() for finding in findings]})
