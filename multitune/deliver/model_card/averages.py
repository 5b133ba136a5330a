"""Which weights the model has where they are not those of one step: what was averaged, how, and what validation chose."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from multitune.core.plan import Plan


def averaging(averaged: Mapping[str, Any], plan: Plan) -> Iterator[tuple[str, str]]:
    """A name and a line for each average that is in the model. averaged: as an artifact's facts have it, empty where there is none."""
    ema, choice = (plan.values.get(f"average.{name}") for name in ("ema", "choice"))
    if averaged and ema is not None:
        upto = f", up to step {averaged['ema_of_step']:,}" if "ema_of_step" in averaged else ""
        yield "running average (EMA)", f"decay {ema.value['decay']:g}, from step {ema.value['start']:,}{upto}"
    if "soup" in averaged:
        soup = averaged["soup"]
        steps = ", ".join(f"{step:,}" for step in soup["steps"])
        yield "mean over evaluations (soup)", f"the weights of steps {steps}, out of {len(soup['of'])}{_scores(soup['alone'], 'step')}"
    if "interpolate" in averaged:
        back = averaged["interpolate"]
        told = f"{back['tuned']:g} of the way from the pretrained weights to the tuned ones, in {back['tensors']:,} tensors"
        yield "interpolation (WiSE-FT)", f"{told}{_scores(back['tried'], 'share')}"
    if averaged and choice is not None:
        yield "chosen by", f"{choice.value['metric']}, on the validation split"


def _scores(values: Mapping[str, float], what: str) -> str:
    """What validation said of each."""
    return f"; on validation {', '.join(f'{what} {name}: {value:.4g}' for name, value in values.items())}" if values else ""
