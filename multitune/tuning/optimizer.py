"""AdamW over what the scope moves: groups by decay, time and rate; its state by public name."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from multitune.tuning.rules import Span
from multitune.tuning.schedule import Schedule
from multitune.tuning.scope import Entry, Scope

KINDS = ("step", "exp_avg", "exp_avg_sq")


def build(scope: Scope, *, betas: tuple[float, float], eps: float, weight_decay: float) -> torch.optim.AdamW:
    """AdamW with a group for each (spans, decays); fused where the device has it, else foreach.

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
    try:
        return torch.optim.AdamW(rows, lr=0.0, betas=betas, eps=eps, fused=True)
    except RuntimeError:  # a device or dtype without the fused kernel
        return torch.optim.AdamW(rows, lr=0.0, betas=betas, eps=eps, foreach=True)


def set_rates(optimizer: torch.optim.Optimizer, schedule: Schedule, *, lr: float, step: int) -> float:
    """Give each group its learning rate for `step`, and forget the state of what starts; returns the run's own (at rate 1, from the start).

    What goes on at another rate keeps its state (moments are of gradients, whatever the rate) and has no second warmup; what
    comes back after a pause starts anew.
    """
    for group in optimizer.param_groups:
        span = next((span for span in group["spans"] if span.start <= step < span.stop), None)
        group["lr"] = 0.0 if span is None else lr * span.rate * schedule.factor(step, start=span.since)
        if span is not None and step == span.since:
            for parameter in group["params"]:
                optimizer.state.pop(parameter, None)
    return lr * schedule.factor(step)


def moments(optimizer: torch.optim.Optimizer, scope: Scope) -> dict[str, Tensor]:
    """The optimizer's state as `<public name>|<kind>`, of the tensors that have one."""
    return {
        f"{entry.name}|{kind}": optimizer.state[entry.parameter][kind]
        for entry in scope.entries
        if entry.parameter in optimizer.state
        for kind in KINDS
    }


def load_moments(optimizer: torch.optim.Optimizer, scope: Scope, saved: Mapping[str, Tensor]) -> None:
    """Put back what `moments` gave."""
    fused = bool(optimizer.defaults["fused"])
    for entry in scope.entries:
        if f"{entry.name}|step" not in saved:
            continue
        device = entry.parameter.device
        homes = {"step": device if fused else torch.device("cpu"), "exp_avg": device, "exp_avg_sq": device}
        optimizer.state[entry.parameter] = {kind: saved[f"{entry.name}|{kind}"].to(homes[kind]).clone() for kind in KINDS}
