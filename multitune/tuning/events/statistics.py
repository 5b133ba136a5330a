"""Statistics of single steps: what each tower's gradient and update are, how the loss divides, where the time goes.

A probe looks at the first steps and at every n-th. On the CPU it times every step, by a few readings of a clock; on other devices, which
would have to be waited for, those that it looks at. It draws nothing and changes no bit of the run. The names that it gives, all
beginning with `train/`:

- `gradient_norm/<tower>`: over what moves in it, before clipping; their squares add up to that of `gradient_norm`.
- `update_ratio/<tower>`: the norm of what the optimizer's step changed over the norm of what stood there before, decay included.
- `loss_share/<term>`: of the loss's terms, each with its share, where there are several. Magnitudes; they add up to 1.
- `part_share/<part>`: how strongly the loss pulls at what each part's tower gives: the gradient's norm there times the output's, token by
  token, summed; where there are several parts. They add up to 1. A part that the model does not look at has none; the product does not
  depend on the scale of a tower's output. A family that gives no features (`encode`) has no such figures, and neither has a run whose
  blocks are compiled: those above a frozen part's features would be other graphs where these are watched, with other last bits.
- `padding/<part>`: the share of padding in what its tower is given, on this process; of parts whose rows differ in length.
- `seconds/forward`, `seconds/backward`, `seconds/optimizer`: of this process; `backward` holds what is neither: losses, sums over ranks.
  With gradient caching `forward` is both passes, and `seconds/forward_again` how much of it is the second.
"""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from multitune.core.protocols import Batch, Features, Outputs
from multitune.models.tokens import SHARE
from multitune.tuning.ranks import Ranks

if TYPE_CHECKING:
    from multitune.tuning.scope import Entry

FIRST = 3  # steps at the start that are always looked at
LARGEST = 1 << 26  # numbers of a tower that are copied to see its update; of a larger one every n-th tensor stands for all


@dataclass
class Probe:
    """Measures the steps that are due. every: steps between two looks; 0: never. parts: those whose features are watched, two or more."""

    ranks: Ranks = field(default_factory=Ranks)
    every: int = 0
    parts: tuple[str, ...] = ()
    _on: bool = False
    _timed: bool = False
    _begun: float = 0.0
    _seconds: dict[str, float] = field(default_factory=dict)
    _pulls: dict[str, Tensor] = field(default_factory=dict)
    _found: dict[str, Tensor] = field(default_factory=dict)
    _filled: dict[str, tuple[float, float]] = field(default_factory=dict)

    def begin(self, step: int) -> None:
        """Step `step` (0 is the first) begins: is it one to look at?"""
        self._on = self.every > 0 and (step < FIRST or (step + 1) % self.every == 0)
        self._timed = self._on or self.ranks.device.type == "cpu"
        if self._on:
            self._pulls, self._found, self._filled = {}, {}, {}
        if self._timed:
            self._seconds = {"forward": 0.0}
            self._begun = self._now()

    def outputs(self, family: Any, batch: Batch, *, again: bool = False) -> Outputs:
        """The family's outputs; in a step that is looked at, each part's features are watched on their way. again: a second pass."""
        if not self._timed:
            return family(batch)
        if self._on and not again:
            for part, inputs in batch.inputs.items():
                real, whole = filled(inputs)
                before = self._filled.get(part, (0.0, 0.0))
                self._filled[part] = before[0] + real, before[1] + whole
        begun = self._now()
        watched = self._on and len(self.parts) > 1
        outputs = family.join(self._watched(family.encode(batch)), batch) if watched else family(batch)
        seconds = self._now() - begun
        self._seconds["forward"] += seconds
        if again:
            self._seconds["forward_again"] = self._seconds.get("forward_again", 0.0) + seconds
        return outputs

    def gradients(self, entries: Sequence[Entry], *, scale: float) -> None:
        """The gradients as the step has them, summed over ranks, times `scale`, not yet clipped."""
        if self._on:
            for tower, tensors in _by_tower(entries, lambda entry: entry.parameter.grad).items():
                self._found[f"gradient_norm/{tower}"] = self._norm(tensors) / scale

    @contextmanager
    def update(self, entries: Sequence[Entry]) -> Generator[None]:
        """Around the optimizer's step."""
        if not self._timed:
            yield
            return
        begun = self._now()
        self._seconds["backward"] = begun - self._begun - self._seconds["forward"]
        if not self._on:
            yield
            self._seconds["optimizer"] = self._now() - begun
            return
        chosen = {tower: _few(tensors) for tower, tensors in _by_tower(entries, lambda entry: entry.parameter.detach()).items()}
        before = {tower: [tensor.clone() for tensor in tensors] for tower, tensors in chosen.items()}
        copied = self._now()
        yield
        self._seconds["optimizer"] = self._now() - copied
        for tower, tensors in chosen.items():
            size = self._norm(before[tower])
            for then, now in zip(before[tower], tensors, strict=True):
                then.sub_(now)
            self._found[f"update_ratio/{tower}"] = self._norm(before[tower]) / size

    def values(self, shared: Mapping[str, float]) -> dict[str, float]:
        """What the step gave, by name; collective over the ranks. shared: the loss's terms, each times its share."""
        if not self._on:
            return {}
        self._on = False
        numbers = torch.stack(list(self._found.values())).tolist() if self._found else []
        values = dict(zip(self._found, numbers, strict=True))
        values |= _shares("loss_share", shared) if len(shared) > 1 else {}
        if len(self.parts) > 1:
            pulls = self.ranks.sum([float(self._pulls.get(part, 0.0)) for part in self.parts])
            values |= _shares("part_share", dict(zip(self.parts, pulls, strict=True)))
        values |= {f"padding/{part}": 1 - real / whole for part, (real, whole) in self._filled.items() if whole}
        return {f"train/{name}": value for name, value in values.items() if math.isfinite(value)}

    def times(self) -> dict[str, float]:
        """How long this process took over the parts of the step, by name; nothing of a step that was not timed."""
        if not self._timed:
            return {}
        self._timed = False
        return {f"train/seconds/{name}": seconds for name, seconds in self._seconds.items()}

    def _watched(self, features: Features) -> Features:
        return Features({part: {name: self._watch(part, value) for name, value in tree.items()} for part, tree in features.parts.items()})

    def _watch(self, part: str, value: Tensor) -> Tensor:
        """The tensor, with an eye on its gradient; of what is frozen a copy that has one."""
        if part not in self.parts or not torch.is_grad_enabled() or not value.is_floating_point() or value.ndim < 2:
            return value
        seen = value.detach()
        watched = value if value.requires_grad else value.detach().requires_grad_().clone()

        def look(gradient: Tensor) -> None:
            pull = (gradient.float().norm(dim=-1) * seen.float().norm(dim=-1)).double().sum()
            self._pulls[part] = self._pulls[part] + pull if part in self._pulls else pull

        watched.register_hook(look)
        return watched

    def _norm(self, tensors: list[Tensor]) -> Tensor:
        if not tensors:
            return torch.zeros((), dtype=torch.float64, device=self.ranks.device)
        return torch.nn.utils.get_total_norm(tensors).double()

    def _now(self) -> float:
        if self.ranks.device.type == "cuda":
            torch.cuda.synchronize(self.ranks.device)
        return time.perf_counter()


def _by_tower(entries: Iterable[Entry], take: Any) -> dict[str, list[Tensor]]:
    """What `take` gives of each entry, by tower; what lies in none by the first step of its name, such as `head`."""
    found: dict[str, list[Tensor]] = {}
    for entry in entries:
        tensors = found.setdefault(entry.tower or entry.name.split(".")[0], [])
        value = take(entry)
        if value is not None:
            tensors.append(value)
    return found


def filled(inputs: Mapping[str, Tensor]) -> tuple[float, float]:
    """How many of a batch's tokens are real, and how many there are; none where it does not say."""
    mask, share = inputs.get("attention_mask"), inputs.get(SHARE)
    if mask is not None:
        return float(mask.sum()), float(mask.numel())
    if share is not None:
        longest = max(value.shape[1] for value in inputs.values() if value.ndim > 1)
        return float(share.sum()) * longest, float(len(share) * longest)
    return 0.0, 0.0


def _few(tensors: list[Tensor]) -> list[Tensor]:
    every = math.ceil(sum(tensor.numel() for tensor in tensors) / LARGEST)
    return tensors[:: max(1, every)]


def _shares(name: str, values: Mapping[str, float]) -> dict[str, float]:
    total = sum(map(abs, values.values()))
    return {f"{name}/{key}": abs(value) / total for key, value in values.items()} if total > 0 else {}
