"""An optimizer over what the scope moves: groups by decay, time and rate; its state by public name."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from multitune.core import catalog
from multitune.tuning.rules import Clock, Span
from multitune.tuning.schedule import Schedule
from multitune.tuning.scope import Entry, Scope


def build(
    scope: Scope,
    *,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
    name: str = "adamw",
    options: Mapping[str, object] | None = None,
) -> torch.optim.Optimizer:
    """The optimizer of that name with a group for each (spans, decays).

    A tensor of fewer than two dimensions (biases, norms, scales) does not decay. Rates are set by `set_rates`.
    """
    groups: dict[tuple[tuple[Span, ...], bool], list[Entry]] = {}
    for entry in scope.entries:
        groups.setdefault((entry.spans, entry.decays), []).append(entry)
    rows = [
        {
            "params": [entry.parameter for entry in entries],
            "weight_decay": weight_decay if decays else 0.0,
            "spans": spans,
        }
        for (spans, decays), entries in groups.items()
    ]
    plugin = catalog.find("optimizer", name, options, where="train.optimizer")
    made: torch.optim.Optimizer = plugin.build(rows, betas=betas, eps=eps)
    return made


def set_rates(optimizer: torch.optim.Optimizer, schedule: Schedule, *, lr: float, step: int, clock: Clock) -> float:
    """Give each group its learning rate for `step`, and forget the state of what starts; returns the run's own (at rate 1, from the start).

    What goes on at another rate keeps its state (moments are of gradients, whatever the rate) and has no second warmup; what
    comes back after a pause starts anew.
    """
    moment = clock.moment(step)
    for group in optimizer.param_groups:
        span = next((span for span in group["spans"] if span.start <= moment < span.stop), None)
        group["lr"] = 0.0 if span is None else lr * span.rate * schedule.factor(step, start=clock.began(span.since))
        if span is not None and step == clock.began(span.since):
            for parameter in group["params"]:
                optimizer.state.pop(parameter, None)
    return lr * schedule.factor(step)


def moments(optimizer: torch.optim.Optimizer, scope: Scope) -> dict[str, Tensor]:
    """The optimizer's state as `<public name>|<kind>`, of the tensors that have one; a count that is no tensor is `<kind>#`."""
    found: dict[str, Tensor] = {}
    seen: set[int] = set()
    for entry in scope.entries:
        for kind, value in optimizer.state.get(entry.parameter, {}).items():
            if isinstance(value, Tensor):
                found[f"{entry.name}|{kind}"] = value.clone() if value.data_ptr() in seen else value  # no file takes one memory twice
                seen.add(value.data_ptr())
            elif isinstance(value, int):
                found[f"{entry.name}|{kind}#"] = torch.tensor(value)
    return found


def load_moments(optimizer: torch.optim.Optimizer, scope: Scope, saved: Mapping[str, Tensor]) -> None:
    """Put back what `moments` gave. A step count lies beside the tensor where the optimizer is fused, else on the CPU."""
    by_name: dict[str, dict[str, Tensor]] = {}
    for key, value in saved.items():
        name, _, kind = key.rpartition("|")
        by_name.setdefault(name, {})[kind] = value
    fused = bool(optimizer.defaults.get("fused"))
    for entry in scope.entries:
        state: dict[str, Tensor | int] = {}
        for kind, value in by_name.get(entry.name, {}).items():
            home = entry.parameter.device if kind != "step" or fused else torch.device("cpu")
            state |= {kind[:-1]: int(value)} if kind.endswith("#") else {kind: value.to(home).clone()}
        if state:
            optimizer.state[entry.parameter] = state
