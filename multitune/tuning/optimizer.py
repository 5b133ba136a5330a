"""AdamW over what the scope moves: groups by rate, decay and time; its state by public name."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from multitune.tuning.schedule import Schedule
from multitune.tuning.scope import Entry, Scope

KINDS = ("step", "exp_avg", "exp_avg_sq")


def build(scope: Scope, *, betas: tuple[float, float], eps: float, weight_decay: float) -> torch.optim.AdamW:
    """AdamW with a group for each (rate, decays, start, stop); fused where the device has it, else foreach.

    A tensor of fewer than two dimensions (biases, norms, scales) does not decay. Rates are set by `set_rates`.
    """
    groups: dict[tuple[float, bool, int, int], list[Entry]] = {}
    for entry in scope.entries:
        groups.setdefault((entry.rate, entry.decays, entry.start, entry.stop), []).append(entry)
    rows = [
        {
            "params": [entry.parameter for entry in entries],
            "weight_decay": weight_decay if decays else 0.0,
            "rate": rate,
            "start": start,
        }
        for (rate, decays, start, _), entries in groups.items()
    ]
    try:
        return torch.optim.AdamW(rows, lr=0.0, betas=betas, eps=eps, fused=True)
    except RuntimeError:  # a device or dtype without the fused kernel
        return torch.optim.AdamW(rows, lr=0.0, betas=betas, eps=eps, foreach=True)


def set_rates(optimizer: torch.optim.Optimizer, schedule: Schedule, *, lr: float, step: int) -> float:
    """Give each group its learning rate for `step`; returns the run's own (at rate 1, from the start)."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["rate"] * schedule.factor(step, start=group["start"])
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
