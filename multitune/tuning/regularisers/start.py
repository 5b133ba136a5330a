"""Where the towers' own weights stood at the start of the run, and how far they went from there."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from multitune.core.finding import Finding, Severity
from multitune.tuning.scope import LOSS, Entry, Scope


@dataclass(frozen=True)
class Start:
    """Copies of what moves in the towers by public name, adapters left out. blocks: public paths of the towers' layers."""

    weights: Mapping[str, Tensor]
    blocks: tuple[str, ...] = ()

    @classmethod
    def of(cls, scope: Scope, *, on_device: bool) -> Start:
        """A copy of what moves in the towers, as it is now; beside it, or in the memory of the processor."""
        kept = [entry for entry in scope.entries if has_start(entry)]
        copies = {entry.name: entry.parameter.detach().clone() for entry in kept}
        return cls(copies if on_device else {name: tensor.cpu() for name, tensor in copies.items()}, scope.blocks)

    def drift(self, scope: Scope) -> dict[str, float]:
        """For each block of a tower how far it went: the norm of the difference over the norm at the start.

        What lies in no block (embeddings, a last norm) counts under the tower's name. A block that started at zero is left out.
        """
        gone, stood = dict[str, float](), dict[str, float]()
        for entry in scope.entries:
            if entry.name in self.weights:
                before = self.weights[entry.name].double()
                block = self._block(entry)
                gone[block] = gone.get(block, 0.0) + float((entry.parameter.detach().to(before.device).double() - before).square().sum())
                stood[block] = stood.get(block, 0.0) + float(before.square().sum())
        return {f"drift/{block}": math.sqrt(gone[block] / stood[block]) for block in gone if stood[block] > 0}

    def _block(self, entry: Entry) -> str:
        inside = [block for block in self.blocks if entry.name.startswith(f"{block}.")]
        return max(inside, key=len, default=entry.tower)


def has_start(entry: Entry) -> bool:
    """Whether a tensor is a tower's own: neither an adapter's, nor a head's, nor the loss's."""
    return bool(entry.tower) and entry.tower != LOSS and not entry.inserted


def told(drift: Mapping[str, float]) -> list[Finding]:
    """The blocks that went farthest and least far, for people."""
    if not drift:
        return []
    most, least = max(drift, key=lambda name: drift[name]), min(drift, key=lambda name: drift[name])
    text = " and ".join(f"{name.removeprefix('drift/')} by {drift[name]:.2%} of its norm" for name in dict.fromkeys((most, least)))
    return [Finding("drift", Severity.INFO, "train.drift", f"from where it started moved {text}.", evidence=dict(drift))]
