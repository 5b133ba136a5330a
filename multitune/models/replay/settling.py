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


def settle(family: Any, moving: Collection[str], *, asked: Sequence[str] = (), batch_norm: BatchNorm = "eval") -> Settled:
    """Prove a family's cuts: those asked for by their public names, else the highest of each tower.

    moving: public names of the tensors that move at some step. A cut that was chosen here and does not hold becomes none, with a finding.
    Nothing is run where everything moves. The family stays as it was.
    Raises: ModelError for a cut that was asked for and does not hold.
    """
    anatomy = anatomies.find(family)
    if not asked and not could_be(anatomy, moving):
        return Settled(())
    rows = probe_rows(family)
    found = candidates(family, anatomy, moving, row=rows[0], batch_norm=batch_norm)
    wanted = [_asked(name, found) for name in asked] or [*found.highest().values()]
    proofs = tuple(prove(family, cut, rows, moving=moving) for cut in wanted)
    failed = [proof for proof in proofs if not proof.equal]
    if asked and failed:
        raise ModelError("cut", f"{failed[0].cut.name} does not hold: {failed[0].reason}", "Choose a lower block, or none.")
    return Settled(proofs, tuple(_finding(proof) for proof in failed))


def _asked(name: str, found: Candidates) -> Cut:
    for cut in found.cuts:
        if cut.name == name:
            return cut
    for refusal in found.refused:
        if refusal.cut.name == name:
            raise ModelError("cut", f"{name} is none: {refusal.reason}.", "Freeze what lies under it, or choose a lower block.")
    known = [cut.name for cut in found.cuts]
    raise ModelError(
        "cut", f'"{name}" is no tower and no block.', did_you_mean(name, known) or f"There are {', '.join(known[:8]) or 'none'}."
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
