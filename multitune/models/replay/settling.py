"""Which cuts a run has: the highest of each tower, or those that were asked for, proven."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from multitune.core.errors import ModelError, did_you_mean
from multitune.core.finding import Finding, Severity
from multitune.models import anatomy as anatomies
from multitune.models.replay.cuts import BatchNorm, Candidates, Cut, Seam, candidates, could_be
from multitune.models.replay.probing import probe_rows
from multitune.models.replay.proof import Proof, prove

WHERE = "features.cuts"


@dataclass(frozen=True)
class Settled:
    """The proofs of a run's cuts, one for each tower that can be cut. findings: what was chosen and did not hold."""

    proofs: tuple[Proof, ...]
    findings: tuple[Finding, ...] = ()

    @property
    def seams(self) -> Mapping[str, Seam]:
        """Tower -> the seam of its cut, where it holds."""
        return {proof.cut.tower: proof.seam for proof in self.proofs if proof.equal and proof.seam is not None}

    def lines(self) -> list[str]:
        """One line for each proof."""
        return [proof.line() for proof in self.proofs]


def settle(
    family: Any, moving: Collection[str], *, asked: Sequence[str] = (), batch_norm: BatchNorm = "eval", where_possible: bool = False
) -> Settled:
    """Prove a family's cuts: those asked for by their public names, and the highest of each other tower.

    moving: public names of the tensors that move at some step. A cut that was chosen here and does not hold becomes none, with a finding.
    Nothing is run where everything moves. where_possible: a cut that was asked for and under which something moves gives way to its
    tower's highest. The family stays as it was.
    Raises: ModelError for a cut that was asked for and does not hold.
    """
    anatomy = anatomies.find(family)
    if not could_be(anatomy, moving) and (not asked or where_possible):
        return Settled(())
    rows = probe_rows(family)
    found = candidates(family, anatomy, moving, row=rows[0], batch_norm=batch_norm)
    named = [_asked(name, found) for name in asked if not where_possible or any(cut.name == name for cut in found.cuts)]
    own = {cut.tower for cut in named}
    wanted = [*named, *(cut for tower, cut in found.highest().items() if tower not in own)]
    proofs = tuple(prove(family, cut, rows, moving=moving) for cut in wanted)
    failed = [proof for proof in proofs if not proof.equal]
    broken = next((proof for proof in failed if proof.cut in named), None)
    if broken is not None:
        raise ModelError(WHERE, f"{broken.cut.name} does not hold: {broken.reason}", "Choose a lower block, or none.")
    return Settled(proofs, tuple(_finding(proof) for proof in failed))


def _asked(name: str, found: Candidates) -> Cut:
    for cut in found.cuts:
        if cut.name == name:
            return cut
    for refusal in found.refused:
        if refusal.cut.name == name:
            raise ModelError(WHERE, f"{name} is no cut here: {refusal.reason}.", "Freeze what lies under it, or choose a lower block.")
    known = [cut.name for cut in found.cuts]
    raise ModelError(
        WHERE, f'"{name}" is no tower and no block.', did_you_mean(name, known) or f"There are {', '.join(known[:8]) or 'none'}."
    )


def _finding(proof: Proof) -> Finding:
    return Finding(
        "cut-not-proven",
        Severity.INFO,
        proof.cut.name,
        f"it is frozen, but its features cannot be kept: {proof.reason}",
        "It is computed in every step.",
        {"alone": proof.alone, "joined": proof.joined},
    )
