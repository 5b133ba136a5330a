"""The exact gradient of one optimizer step, however it is cut into micro-batches and ranks.

A loss over rows: the weights of the whole step are summed over all ranks before the first forward, and each micro-batch's sum is
divided by them before its backward. A loss over pairs (gradient caching): all embeddings are computed first, micro-batch by
micro-batch, gathered over the ranks, the loss is taken over all of them at once, and its gradient is carried back through a
second forward of each micro-batch; reseeding makes dropout repeat itself, and the last micro-batch keeps its graph. So one
micro-batch of a pair loss is one forward.

Source: Gao et al. 2021, arXiv:2101.06983, for the caching.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from multitune.core.protocols import Batch, Loss, Outputs
from multitune.core.randomness import derive, seed_standard
from multitune.data.workers import changed, lights
from multitune.models.predictor import moved
from multitune.tuning.events import Probe
from multitune.tuning.ranks import Ranks

Precision = Literal["fp32", "bf16", "fp16"]
Micro = Sequence[tuple[int, Batch]]
_ROW_BITS = 24
_ALIGNED = 16  # numbers of 4 bytes to the start of a tensor, as torch itself aligns them
_SLAB = 1 << 24  # numbers at most: of larger gradients the block, which stays from step to step, would weigh more than it saves


@dataclass
class Slab:
    """One block of memory in which a step's gradients stay while its other micro-batches run, on the CPU.

    Where the first backward pass leaves them they lie scattered among what that pass frees, and the next graph finds no room between them
    (tried: 16 micro-batches of a CLIP, 85 MB less at most). Their bits are the same; what is not contiguous float32 stays where it is, and
    so do gradients of more than 64 MB together.
    """

    _block: Tensor = field(default_factory=lambda: torch.empty(0))

    def take(self, parameters: Iterable[Tensor]) -> None:
        """Move the gradients in, unless some of them are there already: then they are being added to."""
        found = [parameter for parameter in parameters if parameter.grad is not None and _plain(parameter.grad)]
        gradients = [parameter.grad for parameter in found if parameter.grad is not None]
        if any(gradient.untyped_storage().data_ptr() == self._block.untyped_storage().data_ptr() for gradient in gradients):
            return
        starts = list(itertools.accumulate((-(-gradient.numel() // _ALIGNED) * _ALIGNED for gradient in gradients), initial=0))
        if starts[-1] > _SLAB:
            return
        if len(self._block) < starts[-1]:
            self._block = torch.empty(starts[-1])
        for parameter, gradient, start in zip(found, gradients, starts, strict=False):
            parameter.grad = self._block[start : start + gradient.numel()].view(gradient.shape).copy_(gradient)


@dataclass(frozen=True)
class Gradients:
    """Puts the summed gradient of a step into the parameters' `.grad`; scale multiplies it (fp16). probe: looks on."""

    family: Any
    loss: Loss
    seed: int
    ranks: Ranks = field(default_factory=Ranks)
    precision: Precision = "fp32"
    probe: Probe = field(default_factory=Probe)
    slab: Slab = field(default_factory=Slab)

    def work(self, step: int, micro: Micro, *, scale: float = 1.0) -> Rows | Pairs:
        """The step's backward passes, not yet run. micro: this rank's (global index, batch); collective over the ranks."""
        on_device = changed(micro, lambda batch: moved(batch, self.ranks.device))
        return (Pairs if self.loss.over == "pairs" else Rows)(self, step, on_device, scale)

    def forward(self, step: int, index: int, batch: Batch, *, again: bool = False) -> Outputs:
        """The outputs of one micro-batch under the randomness that belongs to it. again: they were asked for before in this step."""
        seed_everything(derive("step", self.seed, step, index), self.ranks.device)
        with autocast(self.precision, self.ranks.device):
            return self.probe.outputs(self.family, batch, again=again)

    def settle(self) -> None:
        """After the first of several backward passes: bring what it gave together."""
        losses = self.loss.parameters() if isinstance(self.loss, torch.nn.Module) else ()
        self.slab.take([*self.family.parameters(), *losses])

    def share(self, term: str) -> float:
        """What multiplies a term."""
        return self.loss.shares.get(term, 1.0)


class Rows:
    """The backward passes of a loss that judges each row alone."""

    def __init__(self, gradients: Gradients, step: int, micro: Micro, scale: float) -> None:
        self.micro = micro
        self._gradients, self._step, self._scale = gradients, step, scale
        weights = [gradients.loss.weights(batch) for _, batch in lights(micro)]
        local = [sum(weight[term] for weight in weights) for term in gradients.loss.terms]
        self.weights = dict(zip(gradients.loss.terms, gradients.ranks.sum(local), strict=True))

    def backward(self, position: int) -> dict[str, Tensor]:
        """Add the gradient of one micro-batch; gives its part of each term."""
        index, batch = self.micro[position]
        sums = self._gradients.loss.sums(self._gradients.forward(self._step, index, batch), batch)
        terms = {term: sums[term] / self.weights[term] for term in sums if self.weights[term] > 0}
        if terms:
            value = torch.stack([self._gradients.share(term) * part for term, part in terms.items()]).sum()
            if value.requires_grad:
                (value * self._scale).backward()
        if position == 0 and len(self.micro) > 1:
            self._gradients.settle()
        return {term: part.detach() for term, part in terms.items()}

    def order(self) -> list[int]:
        """In which order the micro-batches run."""
        return list(range(len(self.micro)))


class Pairs:
    """The backward passes of a loss that sees every embedding of the step."""

    def __init__(self, gradients: Gradients, step: int, micro: Micro, scale: float) -> None:
        self.micro, self._light = micro, lights(micro)
        self._gradients, self._step = gradients, step
        self._kept: Outputs | None = None
        outputs = [self._first_pass(position) for position in range(len(micro))]
        own = [torch.tensor([(index << _ROW_BITS) + row for row in range(len(batch))], dtype=torch.int64) for index, batch in self._light]
        device = gradients.ranks.device
        keys = gradients.ranks.gather(torch.cat(own).to(device) if own else torch.zeros(0, dtype=torch.int64, device=device))
        order = torch.argsort(keys)
        self._places = [torch.searchsorted(keys[order], part.to(device)) for part in own]
        self._owner = int(keys.min()) >> _ROW_BITS if len(keys) else -1
        leaves = self._leaves(outputs, order)
        batch = self._global_batch(order)
        self.weights = dict(gradients.loss.weights(batch))
        self._terms = self._differentiate(leaves, batch, scale) if micro else {}
        self._leaves_used = leaves

    def backward(self, position: int) -> dict[str, Tensor]:
        """Add the gradient of one micro-batch; the terms are given once, by the micro-batch with the lowest index of all."""
        index, last = self._light[position][0], position == len(self.micro) - 1
        outputs = self._kept if last and self._kept is not None else self._gradients.forward(self._step, *self.micro[position], again=True)
        self._kept = None if last else self._kept
        leaves, places = self._leaves_used, self._places[position]
        pairs = [(outputs.embeddings[part], leaf.grad[places]) for part, leaf in leaves.embeddings.items() if leaf.grad is not None]
        if index == self._owner:
            pairs += [(outputs.scalars[name], leaf.grad) for name, leaf in leaves.scalars.items() if leaf.grad is not None]
        pairs = [(tensor, gradient) for tensor, gradient in pairs if tensor.requires_grad]
        if pairs:
            torch.autograd.backward([tensor for tensor, _ in pairs], [gradient.to(tensor.dtype) for tensor, gradient in pairs])
        if last and len(self.micro) > 1:
            self._gradients.settle()
        return self._terms if index == self._owner else {}

    def order(self) -> list[int]:
        """In which order the micro-batches run: the last first, so that its graph goes before the next is made."""
        return list(range(len(self.micro)))[::-1]

    def _first_pass(self, position: int) -> Outputs:
        index, batch = self.micro[position]
        last = position == len(self.micro) - 1
        with nullcontext() if last else torch.no_grad():
            outputs = self._gradients.forward(self._step, index, batch)
        self._kept = outputs if last else None
        return outputs

    def _leaves(self, outputs: Sequence[Outputs], order: Tensor) -> Outputs:
        """Every embedding of the step, in the order of the micro-batches, and the scalars, as leaves."""
        ranks, parts = self._gradients.ranks, list(self._gradients.family.needs.parts)
        own_widths = [outputs[0].embeddings[part].shape[1] if outputs and part in outputs[0].embeddings else 0 for part in parts]
        widths = [int(ranks.highest(width)) for width in own_widths]
        embeddings: dict[str, Tensor] = {}
        for part, width in zip(parts, widths, strict=True):
            if width:
                own = [output.embeddings[part].detach().float() for output in outputs]
                rows = torch.cat(own) if own else torch.zeros(0, width, device=ranks.device)
                embeddings[part] = ranks.gather(rows)[order].requires_grad_()
        scalars = {name: value.detach().float().requires_grad_() for name, value in outputs[0].scalars.items()} if outputs else {}
        return Outputs(embeddings=embeddings, scalars=scalars)

    def _global_batch(self, order: Tensor) -> Batch:
        """What a pair loss may look at beside embeddings: ids (hashed where there are several ranks), presence, answers of one value."""
        ranks, needs = self._gradients.ranks, self._gradients.family.needs

        def gathered(take: Callable[[Batch], Tensor]) -> Tensor:
            own = [take(batch).to(torch.float64) for _, batch in self._light]
            return ranks.gather(torch.cat(own) if own else torch.zeros(0, dtype=torch.float64, device=ranks.device))[order]

        presence = {name: gathered(lambda batch, name=name: batch.presence[name]) > 0 for name in (*needs.parts, *needs.answers)}
        kinds = {"category": torch.int64, "labels": torch.float32, "number": torch.float32}
        single = {name: kinds[need.modality] for name, need in needs.answers.items() if need.modality in kinds}
        answers = {name: gathered(lambda batch, name=name: batch.answers[name]).to(kind) for name, kind in single.items()}
        return Batch(ids=self._ids(order), inputs={}, answers=answers, presence=presence, contents=self._contents(order))

    def _contents(self, order: Tensor) -> dict[str, Tensor]:
        """What the rows hold of each part; a batch that does not say it has as many contents as ids."""
        ranks = self._gradients.ranks

        def held(name: str) -> Tensor:
            own = [batch.contents[name] if name in batch.contents else _by_id(batch, ranks.device) for _, batch in self._light]
            return ranks.gather(torch.cat(own) if own else torch.zeros(0, dtype=torch.int64, device=ranks.device))[order]

        return {name: held(name) for name in self._gradients.family.needs.parts}

    def _ids(self, order: Tensor) -> tuple[str, ...]:
        ranks = self._gradients.ranks
        if ranks.world == 1:
            names = [name for _, batch in self._light for name in batch.ids]
            return tuple(names[place] for place in order.tolist())
        own = [_by_id(batch, ranks.device) for _, batch in self._light]
        hashed = torch.cat(own) if own else torch.zeros(0, dtype=torch.int64, device=ranks.device)
        return tuple(str(number) for number in ranks.gather(hashed)[order].tolist())

    def _differentiate(self, leaves: Outputs, batch: Batch, scale: float) -> dict[str, Tensor]:
        sums = self._gradients.loss.sums(leaves, batch)
        terms = {term: sums[term] / self.weights[term] for term in sums if self.weights[term] > 0}
        if terms:
            value = torch.stack([self._gradients.share(term) * part for term, part in terms.items()]).sum()
            (value * scale).backward()
        loss = self._gradients.loss
        if isinstance(loss, torch.nn.Module) and self._owner not in {index for index, _ in self._light}:
            loss.zero_grad(set_to_none=True)  # every rank took the loss of all rows: of what it learns itself, one gradient is the whole
        return {term: part.detach() for term, part in terms.items()}


def seed_everything(seed: int, device: torch.device) -> None:
    """Seed every generator that a model may draw from. `torch.manual_seed` would do the same a hundred times slower."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.default_generators[device.index or 0].manual_seed(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)
    seed_standard(seed)


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager[Any]:
    """Where matrix products run in half precision; a context of its own for each forward, since it caches cast weights."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16 if precision == "bf16" else torch.float16)


def _plain(gradient: Tensor) -> bool:
    """Whether a gradient is a contiguous float32 tensor on the CPU."""
    return gradient.device.type == "cpu" and gradient.dtype == torch.float32 and not gradient.is_sparse and gradient.is_contiguous()


def _by_id(batch: Batch, device: torch.device) -> Tensor:
    """A number for each row that follows from its id, int64 (rows,)."""
    return torch.tensor([derive("id", name) for name in batch.ids], dtype=torch.int64, device=device)
