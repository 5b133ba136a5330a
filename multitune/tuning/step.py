"""One optimizer step: forward, backward, sum over ranks, look at the numbers, clip, and only then move."""

from __future__ import annotations

import math
import re
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from multitune.core.errors import Fault, NoMemoryError, NonFiniteError
from multitune.core.protocols import Batch, Loss
from multitune.data.workers import lights
from multitune.models.predictor import moved
from multitune.tuning.gradients import Gradients, Micro, Pairs, Rows
from multitune.tuning.ranks import Ranks
from multitune.tuning.regularisers.penalties import Penalties
from multitune.tuning.scope import Scope

MAX_OVERFLOWS = 5
GROWTH_INTERVAL = 2000
FIRST_SCALE = 2.0**16
_NO_MEMORY = re.compile(r"can't allocate memory|not enough memory|out of memory", re.IGNORECASE)  # torch has no type for it on a CPU


@dataclass(frozen=True)
class Report:
    """What one step gave. loss: the shared sum of `terms`. gradient_norm: before clipping, that of penalties in it.

    skipped: fp16 overflowed, nothing moved. penalty: the sum of the penalties, not in `loss`.
    """

    loss: float
    terms: Mapping[str, float]
    gradient_norm: float
    skipped: bool
    penalty: float = 0.0


@dataclass
class LossScale:
    """The factor that keeps fp16 gradients from vanishing; 1 in other precisions."""

    value: float = 1.0
    good: int = 0
    overflows: int = 0

    def passed(self) -> None:
        """A step was finite: after many of them the factor doubles."""
        self.good, self.overflows = self.good + 1, 0
        if self.good >= GROWTH_INTERVAL:
            self.value, self.good = self.value * 2, 0

    def overflowed(self) -> None:
        """A step was not: the factor halves.

        Raises: Fault after five in a row.
        """
        self.good, self.overflows = 0, self.overflows + 1
        self.value /= 2
        if self.overflows >= MAX_OVERFLOWS:
            raise Fault(f"fp16 gradients overflowed {MAX_OVERFLOWS} times in a row. Train in bf16 or fp32, or at a lower rate.")


@contextmanager
def _remembering(step: int, micro: Micro) -> Generator[None]:
    """Inside, a machine without memory is told as such, with a smaller micro-batch.

    Raises: NoMemoryError.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not (isinstance(error, MemoryError) or _NO_MEMORY.search(str(error))):
            raise
        rows = max((len(batch) for _, batch in lights(micro)), default=1)
        would = f"Try train.micro_batch={rows // 2}: its gradient is the same" if rows > 1 else "Try train.checkpoint_activations=true"
        found = f"step {step + 1}: the machine has no memory left for a micro-batch of {rows} rows"
        raise NoMemoryError(f"{found}. {would}, or free some memory.") from error


class Step:
    """Moves what the scope says, by the exact gradient of the step's batch."""

    def __init__(
        self,
        gradients: Gradients,
        *,
        scope: Scope,
        optimizer: torch.optim.Optimizer,
        clip_norm: float,
        clip_value: float = 0.0,
        penalties: Penalties | None = None,
    ) -> None:
        self.scale = LossScale(FIRST_SCALE) if gradients.precision == "fp16" else LossScale()
        self._gradients, self._scope, self._optimizer, self._clip_norm = gradients, scope, optimizer, clip_norm
        self._clip_value, self._penalties = clip_value, penalties or Penalties()

    def __call__(self, step: int, micro: Micro) -> Report:
        """Run step `step` (0 is the first) on this rank's micro-batches; collective over the ranks.

        Raises: NonFiniteError, before anything moved, naming the samples; NoMemoryError; Fault after five fp16 overflows in a row.
        """
        with _remembering(step, micro):
            return self._taken(step, micro)

    def _taken(self, step: int, micro: Micro) -> Report:
        ranks, entries, probe = self._gradients.ranks, self._scope.moving(step), self._gradients.probe
        parameters = [entry.parameter for entry in entries]
        for entry in self._scope.entries:  # as the optimizer's own zero_grad does, at a tenth of the time
            entry.parameter.grad = None
        work = self._gradients.work(step, micro, scale=self.scale.value)
        terms = self._terms(work.backward(position) for position in work.order())
        ranks.sum_gradients(parameters)
        probe.gradients(entries, scale=self.scale.value)
        norm = _norm(parameters) / self.scale.value
        loss = sum(self._gradients.share(term) * value for term, value in terms.items())
        if math.isfinite(loss) and not math.isfinite(norm) and self._gradients.precision == "fp16":
            self.scale.overflowed()
            self._optimizer.zero_grad(set_to_none=True)
            return Report(loss, terms, 0.0, skipped=True)
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise NonFiniteError(self._accusation(step, work, parameters, loss=loss, norm=norm))
        self._rescale(parameters)
        penalty = self._penalties.add(entries) if self._penalties.active else 0.0
        norm = _norm(parameters) if self._penalties.active else norm
        self._clip(parameters, norm)
        with probe.update(entries):
            self._optimizer.step()
        self.scale.passed()
        return Report(loss, terms, norm, skipped=False, penalty=penalty)

    def _terms(self, parts: Iterable[Mapping[str, Tensor]]) -> dict[str, float]:
        """Each term over all micro-batches and ranks; what is not finite anywhere is not finite here."""
        names = self._gradients.loss.terms
        named: list[str] = []
        found: list[Tensor] = []
        for part in parts:
            named += part
            found += part.values()
        local = dict.fromkeys(names, 0.0)
        for name, value in zip(named, torch.stack(found).double().tolist() if found else (), strict=True):  # one wait for the device
            local[name] += value
        return dict(zip(names, self._gradients.ranks.sum([local[name] for name in names]), strict=True))

    def _rescale(self, parameters: list[torch.nn.Parameter]) -> None:
        if self.scale.value != 1.0:
            for parameter in parameters:
                if parameter.grad is not None:
                    parameter.grad.div_(self.scale.value)

    def _clip(self, parameters: list[torch.nn.Parameter], norm: float) -> None:
        if self._clip_value:
            torch.nn.utils.clip_grad_value_(parameters, self._clip_value)
        elif 0 < self._clip_norm < norm:
            torch.nn.utils.clip_grads_with_norm_(parameters, self._clip_norm, torch.tensor(norm, device=self._gradients.ranks.device))

    def _accusation(self, step: int, work: Rows | Pairs, parameters: list[torch.nn.Parameter], *, loss: float, norm: float) -> str:
        """Which samples stand out; where none does on any rank, each micro-batch is tried alone for its gradient."""
        guilty = [name for index, batch in work.micro for name in self._standing_out(step, index, batch)]
        if not self._gradients.ranks.any(bool(guilty)):
            for position in work.order():
                self._optimizer.zero_grad(set_to_none=True)
                values = work.backward(position)
                if not (all(bool(torch.isfinite(value)) for value in values.values()) and math.isfinite(_norm(parameters))):
                    guilty += work.micro[position][1].ids
        self._optimizer.zero_grad(set_to_none=True)
        shown = ", ".join(guilty[:16]) + (f" and {len(guilty) - 16} more" if len(guilty) > 16 else "")
        who = f"samples {shown}" if guilty else "samples of another rank"
        return f"step {step + 1}: the loss is {loss:g}, the gradient's norm {norm:g}; {who}. The weights were not touched."

    def _standing_out(self, step: int, index: int, batch: Batch) -> list[str]:
        """The ids of the rows whose inputs, outputs or answers are not finite."""
        with torch.no_grad():
            outputs = self._gradients.forward(step, index, batch)
        tensors = [*outputs.logits.values(), *outputs.embeddings.values(), *batch.answers.values()]
        tensors += [tensor for part in batch.inputs.values() for tensor in part.values()]
        bad = torch.zeros(len(batch), dtype=torch.bool, device=self._gradients.ranks.device)
        for tensor in tensors:
            if tensor.is_floating_point() and tensor.ndim and len(tensor) == len(batch):
                bad |= ~torch.isfinite(tensor.detach().flatten(1) if tensor.ndim > 1 else tensor.detach()[:, None]).all(1)
        return [name for name, is_bad in zip(batch.ids, bad.tolist(), strict=True) if is_bad]


def reached(family: Any, loss: Loss, scope: Scope, batch: Batch) -> tuple[set[str], float]:
    """The public names of the tensors that one forward and backward of `batch` gives a gradient, and the loss; nothing moves."""
    scope.enter(0)
    gradients = Gradients(family, loss, seed=0)
    for entry in scope.entries:
        entry.parameter.grad = None
    work = gradients.work(0, [(0, batch)])
    terms = work.backward(0)
    names = {entry.name for entry in scope.entries if entry.parameter.grad is not None}
    for entry in scope.entries:
        entry.parameter.grad = None
    return names, float(sum(gradients.share(term) * float(value) for term, value in terms.items()))


def held_out(family: Any, loss: Loss, batches: Iterable[Batch], *, ranks: Ranks | None = None) -> dict[str, float]:
    """The loss as training takes it, over batches that are not trained on, the model at rest: `loss`, and `loss/<term>` of several.

    A loss over pairs sees the rows of one batch together. Empty where no row counts.
    """
    gradients = Gradients(family, loss, seed=0, ranks=ranks or Ranks())
    sums, weights = dict.fromkeys(loss.terms, 0.0), dict.fromkeys(loss.terms, 0.0)
    family.eval()
    with torch.no_grad():
        for number, batch in enumerate(batches):
            here = moved(batch, gradients.ranks.device)
            found, counted = loss.sums(gradients.forward(0, number, here), here), loss.weights(here)
            for term in loss.terms:
                sums[term] += float(found[term]) if counted[term] > 0 else 0.0
                weights[term] += counted[term]
    terms = {term: sums[term] / weights[term] for term in loss.terms if weights[term] > 0}
    if not terms:
        return {}
    total = {"loss": sum(gradients.share(term) * value for term, value in terms.items())}
    return total | ({f"loss/{term}": value for term, value in terms.items()} if len(loss.terms) > 1 else {})


def _norm(parameters: list[torch.nn.Parameter]) -> float:
    gradients = [p.grad for p in parameters if p.grad is not None]
    return float(torch.nn.utils.get_total_norm(gradients)) if gradients else 0.0
