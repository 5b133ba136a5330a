"""The proof of a cut: the same outputs and the same gradients with and without replay, on rows of different sizes, alone and joined."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from multitune.core.protocols import Batch
from multitune.models import anatomy as anatomies
from multitune.models.replay.cuts import Cut, Seam
from multitune.models.replay.modes import as_it_was, seeded, take_gradients
from multitune.models.replay.recording import Row, Stored, Watched, collated, stored, watching
from multitune.models.replay.replaying import blanked, replay
from multitune.models.replay.surveying import ERRORS, survey
from multitune.models.replay.trees import Unlike

TOLERANCE = 1e-5
HALF_EPSILONS = 4
IGNORED = -100


@dataclass(frozen=True)
class Run:
    """One forward and backward: the outputs that a loss may read, and the gradients of what moves, by public name."""

    outputs: Mapping[str, Tensor]
    gradients: Mapping[str, Tensor]


@dataclass(frozen=True)
class Proof:
    """Whether a cut holds. reason: why not, else empty. alone, joined: the largest difference found, in standard deviations.

    num_bytes: that the rows of the proof store, by row. seam: what replay needs, where it could be found.
    """

    cut: Cut
    equal: bool
    reason: str
    seam: Seam | None
    alone: float = 0.0
    joined: float = 0.0
    num_bytes: tuple[int, ...] = ()
    seconds: float = 0.0

    def line(self) -> str:
        """For people: `image.layers.3: proven, 1,024 bytes a row`."""
        if not self.equal:
            return f"{self.cut.name}: no cut; {self.reason}"
        return f"{self.cut.name}: proven, at most {max(self.num_bytes):,} bytes a row, {self.joined:.1e} apart joined"


def prove(family: Any, cut: Cut, rows: Sequence[Row], *, moving: Collection[str]) -> Proof:
    """Run prepared rows alone and joined, with and without replay at `cut`, and compare.

    moving: public names of the tensors whose gradients are compared. Same bits for a row alone; joined to 1e-5 of the standard deviation
    (four epsilons of the stored type where that is more). In eval mode; the family stays as it was.
    """
    started = time.perf_counter()
    names = {path: name for path, name in anatomies.find(family).names.items() if name in set(moving)}
    with as_it_was(family):
        family.eval()
        take_gradients(family, names)
        try:
            proof = _proven(family, cut, rows, names)
        except Unlike as error:
            proof = Proof(cut, equal=False, reason=f"its module {error}.", seam=None)
        except ERRORS as error:
            proof = Proof(cut, equal=False, reason=f"replay fails: {str(error).strip().splitlines()[:1]}", seam=None)
    return replace(proof, seconds=time.perf_counter() - started)


def _proven(family: Any, cut: Cut, rows: Sequence[Row], names: Mapping[str, str]) -> Proof:
    batches, together = [collated(family, [row]) for row in rows], collated(family, rows)
    alone, seen = zip(*(_watched(family, batch, cut, names) for batch in batches), strict=True)
    joined, seen_joined = _watched(family, together, cut, names)
    if not all(bool(tensor.isfinite().all()) for run in (*alone, joined) for tensor in run.outputs.values()):
        return Proof(cut, equal=False, reason="the outputs are not finite.", seam=None)
    seam = survey(family, cut, seen, seen_joined, batches, together)
    kept = [_stored(seam, watched) for watched in seen]
    largest, reason = 0.0, ""
    for batch, run, row in zip(batches, alone, kept, strict=True):
        again = _replayed(family, seam, batch, [row], names)
        apart, where = _apart(run, again)
        largest, reason = max(largest, apart), reason or (f"alone, {where}." if apart > 0 else "")
    again = _replayed(family, seam, together, kept, names)
    apart, where = _apart(joined, again)
    if not reason and not apart <= _tolerance(seam):
        reason = f"joined with longer rows, {where}."
    return Proof(cut, not reason, reason, seam, largest, apart, tuple(row.num_bytes for row in kept))


def _watched(family: Any, batch: Batch, cut: Cut, names: Mapping[str, str]) -> tuple[Run, Watched]:
    with watching(family, cut.path) as watched:
        made = run(family, batch, names)
    calls = watched.calls[cut.path]
    if calls != 1:
        raise Unlike(f"is called {calls} times in a forward")
    return made, watched


def _replayed(family: Any, seam: Seam, batch: Batch, rows: Sequence[Stored | None], names: Mapping[str, str]) -> Run:
    with replay(family, seam, rows):
        return run(family, blanked(batch, seam), names)


def _stored(seam: Seam, watched: Watched) -> Stored:
    return stored(seam, watched.trees[seam.cut.path].tensors, {path: watched.trees[path].shapes for path in seam.below})


def run(family: nn.Module, batch: Batch, names: Mapping[str, str]) -> Run:
    """One forward and backward of a fixed sum over everything that a loss may read. names: path -> public name of what moves."""
    with seeded("proof"), torch.enable_grad():
        outputs = readable(family(batch), batch)
        total = weighed(outputs)
        parameters = {name: family.get_parameter(path) for path, name in names.items()}
        if not parameters or not total.requires_grad:
            return Run({name: tensor.detach() for name, tensor in outputs.items()}, {})
        gradients = torch.autograd.grad(total, [*parameters.values()], allow_unused=True)
    found = {name: gradient for name, gradient in zip(parameters, gradients, strict=True) if gradient is not None}
    return Run({name: tensor.detach() for name, tensor in outputs.items()}, found)


def readable(outputs: Any, batch: Batch) -> dict[str, Tensor]:
    """What a loss may read: all of a family's outputs but the logits beside an answer."""
    made = {f"embeddings of {name}": tensor for name, tensor in outputs.embeddings.items()}
    made |= {f"the scalar {name}": tensor for name, tensor in outputs.scalars.items()}
    for name, logits in outputs.logits.items():
        answer = batch.answers.get(name)
        plain = answer is None or answer.is_floating_point() or logits.shape[: answer.dim()] != answer.shape
        made[f"logits of {name}"] = logits if plain else logits[answer != IGNORED]
    return made


def weighed(outputs: Mapping[str, Tensor]) -> Tensor:
    """A sum in which no output cancels another."""
    sums = [
        (tensor.float().flatten() * torch.cos(1 + torch.arange(tensor.numel(), device=tensor.device))).sum() for tensor in outputs.values()
    ]
    return torch.stack(sums).sum()


def _tolerance(seam: Seam) -> float:
    kinds = [leaf.dtype for leaf in seam.layout.leaves if leaf.read and leaf.dtype.is_floating_point]
    coarse = max((torch.finfo(kind).eps for kind in kinds if kind.itemsize < torch.float32.itemsize), default=0.0)
    return max(TOLERANCE, HALF_EPSILONS * coarse)


def _apart(one: Run, other: Run) -> tuple[float, str]:
    """The largest difference in standard deviations, 0 for the same bits, and where it is."""
    missing = sorted({*one.gradients} ^ {*other.gradients})
    if missing:
        word = "gets no gradient" if missing[0] in one.gradients else "gets a gradient only so"
        return float("inf"), f"{missing[0]} {word} under replay"
    if not all(bool(tensor.isfinite().all()) for tensor in other.outputs.values()):
        return float("inf"), "something above reads what should only feed the cut"
    all_gradients = [tensor.float().flatten() for tensor in one.gradients.values()]
    least = _spread(torch.cat(all_gradients)) if all_gradients else 0.0  # some are nothing but rounding: a key's bias moves no attention
    found = [(_distance(tensor, other.outputs[name], 0.0), name) for name, tensor in one.outputs.items()]
    found += [(_distance(tensor, other.gradients[name], least), f"the gradient of {name}") for name, tensor in one.gradients.items()]
    apart, where = max(found, default=(0.0, ""))
    return apart, f"{where}: {apart:.1e} standard deviations apart"


def _distance(one: Tensor, other: Tensor, least: float) -> float:
    if one.shape != other.shape or not bool(other.isfinite().all()):
        return float("inf")
    if torch.equal(one, other) or not one.numel():
        return 0.0
    return float((one.double() - other.double()).abs().max()) / max(_spread(one), least, torch.finfo(torch.float32).tiny)


def _spread(tensor: Tensor) -> float:
    """The standard deviation; of one number, its size."""
    return float(tensor.double().std()) if tensor.numel() > 1 else float(tensor.double().abs().max())
