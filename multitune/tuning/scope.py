"""What may move, when and how fast: the tuning table applied to a model, and afterwards compared with what did move.

A module moves at a step if a tensor in it does; every other module is in eval mode, so what is frozen is not random either.
Batch norm keeps its statistics unless `batch_norm="moving"`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from multitune.core.errors import ModelError
from multitune.core.finding import Finding, Severity
from multitune.core.recipe import TuningRow
from multitune.models import anatomy as anatomies
from multitune.models.anatomy import Anatomy
from multitune.models.predictor import rested
from multitune.models.replay.modes import set_modes, statistics
from multitune.tuning import inserts
from multitune.tuning.rules import Clock, Span, resolve, spans

BatchNorm = Literal["eval", "moving"]
LOSS = "loss"  # what a loss's own parameters are called by: loss.uncertainty.label


@runtime_checkable
class LearningLoss(Protocol):
    """A loss that learns what multiplies its terms; `learned` gives it by term, told in the events as `train/learned_share/<term>`."""

    def learned(self) -> Mapping[str, float]: ...


@dataclass(frozen=True, eq=False)
class Entry:
    """One tensor that moves. tower: empty for what lies in none, `loss` for the loss's own. spans: when and how fast.

    inserted: it belongs to an adapter.
    """

    name: str
    tower: str
    parameter: torch.nn.Parameter
    spans: tuple[Span, ...]
    inserted: bool

    @property
    def decays(self) -> bool:
        """Whether weight decay applies: weights of two or more dimensions, none of the loss's own."""
        return self.parameter.ndim >= 2 and self.tower != LOSS

    def moves(self, step: int) -> bool:
        """Whether it is planned to move at `step`."""
        return any(span.start <= step < span.stop for span in self.spans)


@dataclass
class Scope:
    """What moves in `family`. adapters: what was inserted, by tower. left_out: matched, but out of reach.

    blocks: public paths of the towers' layers. clock: which phase it is. step: the last that it was made true of, or that a run ended with.
    """

    family: Any
    entries: tuple[Entry, ...]
    total: int
    batch_norm: BatchNorm = "eval"
    adapters: Mapping[str, inserts.Put] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    blocks: tuple[str, ...] = ()
    clock: Clock = field(default_factory=Clock)
    step: int = 0
    _entered: list[Entry] | None = None
    _left: tuple[list[Entry], list[torch.nn.Module]] | None = None
    _moving: tuple[range, list[Entry]] = (range(0), [])

    @property
    def parameters_moved(self) -> int:
        """How many numbers move at some step."""
        return sum(entry.parameter.numel() for entry in self.entries)

    def moving(self, step: int) -> list[Entry]:
        """The tensors that move at `step`."""
        moment = self.clock.moment(step)
        if moment not in self._moving[0]:
            edges = {edge for entry in self.entries for span in entry.spans for edge in (span.start, span.stop)}
            before, after = [edge for edge in edges if edge <= moment], [edge for edge in edges if edge > moment]
            now = [entry for entry in self.entries if entry.moves(moment)]
            self._moving = (range(max(before, default=0), min(after, default=moment + 1)), now)
        return self._moving[1]

    def phase(self, step: int) -> int:
        """The planned start of the phase of `step`: of the stretch in which the same moves at the same rates."""
        moment = self.clock.moment(step)
        return max((edge for edge in self._edges() if edge <= moment), default=0)

    def next_start(self, step: int) -> int:
        """The planned start of the first phase after that of `step`, 0 where it is the last: what begins, ceases or changes its rate."""
        moment = self.clock.moment(step)
        return min((edge for edge in self._edges() if moment < edge < self.total), default=0)

    def _edges(self) -> set[int]:
        return {edge for entry in self.entries for span in entry.spans for edge in (span.start, span.stop)}

    def moving_names(self, step: int) -> set[str]:
        """The public names of the tensors that move at `step`."""
        return {entry.name for entry in self.moving(step)}

    def stretches(self) -> list[tuple[int, int, frozenset[str]]]:
        """The planned steps in which the same tensors move: start (inclusive), stop (exclusive), their public names."""
        edges = sorted({0, self.total, *(edge for entry in self.entries for span in entry.spans for edge in (span.start, span.stop))})
        found: list[tuple[int, int, frozenset[str]]] = []
        for start, stop in pairwise(edge for edge in edges if edge <= self.total):
            names = frozenset(entry.name for entry in self.entries if entry.moves(start))
            if found and found[-1][2] == names:
                found[-1] = (found[-1][0], stop, names)
            else:
                found.append((start, stop, names))
        return found

    def enter(self, step: int) -> None:
        """Make `step`'s phase true of the model: which tensors take gradients, which modules are in training mode."""
        self.step = step
        moving = self.moving(step)
        if moving is self._entered:
            return
        self._entered = moving
        left, self._left = self._left, None
        if left is not None and left[0] is moving:  # back from an evaluation: nothing else has changed
            for module in left[1]:
                module.training = True
            return
        for parameter in (*self.family.parameters(), *(entry.parameter for entry in self.entries)):
            parameter.requires_grad_(False)
        for entry in moving:
            entry.parameter.requires_grad_(True)
        set_modes(self.family, still=self.batch_norm == "eval")

    def leave(self) -> None:
        """Put the whole model into eval mode; `enter` comes back from it."""
        trained = rested(self.family)
        if self._entered is not None:
            self._left = (self._entered, trained)
        self._entered = None

    def buffers(self) -> dict[str, Tensor]:
        """The model's buffers by module path."""
        return dict(self.family.named_buffers())

    def hashes(self) -> dict[str, str]:
        """A hash of every tensor of the model: what moves by public name, the rest by module path, buffers too."""
        named = {id(entry.parameter): entry.name for entry in self.entries}
        tensors = {named.get(id(tensor), f"{name}!"): tensor for name, tensor in self.family.named_parameters()}
        tensors |= {entry.name: entry.parameter for entry in self.entries if entry.tower == LOSS}
        tensors |= {f"{name}!buffer": tensor for name, tensor in self.family.named_buffers()}
        return {name: _hash(tensor) for name, tensor in tensors.items()}

    def compare(self, before: Mapping[str, str], after: Mapping[str, str], *, steps: int) -> list[Finding]:
        """What really moved in the first `steps` steps, against the plan.

        before, after: from `hashes`, at the start of the run and at its end.
        """
        changed = {name for name, value in after.items() if before.get(name) != value}
        planned = {entry.name for entry in self.entries if any(span.start <= self.clock.moment(steps - 1) for span in entry.spans)}
        moving_statistics = statistics(self.family) if self.batch_norm == "moving" else ()
        allowed = {f"{path}.{name}!buffer" for path, inner in moving_statistics for name, _ in inner.named_buffers(recurse=False)}
        still, strays = sorted(planned - changed), sorted(changed - planned - allowed)
        findings: list[Finding] = []
        if still:
            message = f"{len(still)} of {len(planned)} tensors that were to move did not, such as {still[0]}."
            whole = _tops(planned) - _tops(planned - set(still))
            severity = Severity.WARNING if whole else Severity.INFO
            remedy = f"Nothing of {', '.join(sorted(whole))} moved." if whole else "Nothing in the data asked for it."
            findings.append(Finding("did-not-move", severity, "strategy", message, remedy, {"tensors": still[:20]}))
        if strays:
            message = f"{len(strays)} tensors moved that were not to, such as {strays[0].rstrip('!')}."
            findings.append(Finding("moved-unplanned", Severity.ERROR, "strategy", message, "", {"tensors": strays[:20]}))
        return findings


def apply(
    rows: Sequence[TuningRow | Mapping[str, Any]],
    anatomy: Anatomy,
    family: Any,
    *,
    total_steps: int,
    seed: int,
    batch_norm: BatchNorm = "eval",
    unused: Collection[str] = (),
    loss: object = None,
) -> Scope:
    """Insert adapters, and decide for every tensor of `family` whether, when and how fast it moves.

    rows: the tuning table, also as the plan holds it; later rows win, unmatched is frozen. anatomy: that of `family` before
    anything is inserted. unused: public names that no gradient reaches; they are left out. loss: one with parameters of its own is a torch
    module; they are called `loss...`.
    Raises: ModelError for a pattern that matches nothing, or adapters that cannot be inserted.
    """
    table = [row if isinstance(row, TuningRow) else TuningRow.model_validate(row) for row in rows]
    resolve(table, beside(anatomy, loss), total=total_steps)
    inserted = inserts.insert(table, anatomy, family, total=total_steps, seed=seed)
    whole = anatomies.find(family) if inserted.towers else anatomy
    tensors = {name: family.get_parameter(path) for path, name in whole.names.items()} | own_parameters(loss)
    rules = resolve(table, beside(anatomy, loss), total=total_steps, by_row=inserted.by_row)
    towers = {LOSS, *(tower.name for tower in whole.towers)}
    brought = {name for names in inserted.by_row.values() for name in names}
    entries: list[Entry] = []
    for name, tensor in tensors.items():
        moves = spans(rules.get(name, ()), total=total_steps)
        if moves and name not in unused and tensor.is_floating_point():
            first = name.split(".")[0]
            entries.append(Entry(name, first if first in towers else "", tensor, moves, name in brought))
    left_out = tuple(sorted(name for name in unused if name in rules))
    blocks = tuple(block for tower in whole.towers for block in tower.blocks)
    return Scope(family, tuple(entries), total_steps, batch_norm, inserted.towers, left_out, blocks)


def own_parameters(loss: object) -> dict[str, torch.nn.Parameter]:
    """A loss's own parameters by public name; none where it is no torch module."""
    return {f"{LOSS}.{path}": parameter for path, parameter in loss.named_parameters()} if isinstance(loss, torch.nn.Module) else {}


def beside(anatomy: Anatomy, loss: object) -> Anatomy:
    """The anatomy with the loss's own parameters beside the model's.

    Raises: ModelError where something of the model is called `loss` too.
    """
    own = own_parameters(loss)
    if own and any(name.split(".")[0] == LOSS for name in anatomy.parameters):
        raise ModelError("data.parts", f'a part is called "{LOSS}", and so are the parameters of the loss.', "Call it something else.")
    if not own:
        return anatomy
    sizes = {name: parameter.numel() for name, parameter in own.items()}
    shapes = {name: tuple(parameter.shape) for name, parameter in own.items()}
    names = {**anatomy.names, **{name: name for name in own}}
    return replace(anatomy, names=names, sizes={**anatomy.sizes, **sizes}, shapes={**anatomy.shapes, **shapes})


def _tops(names: Collection[str]) -> set[str]:
    return {name.split(".")[0] for name in names}


def _hash(tensor: Tensor) -> str:
    flat = tensor.detach().cpu().contiguous().flatten().view(torch.uint8)
    return hashlib.blake2b(flat.numpy().data, digest_size=16).hexdigest()
