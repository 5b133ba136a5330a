"""How an artifact came about, as far as its plan does not say it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Story:
    """What happened in training. rows: fate -> how many. primary: the figures that matter most -> which way they are better.

    seconds: of training, over all starts of the run. findings: messages that whoever uses the model should know, with their remedies.
    """

    steps: int = 0
    best_step: int = 0
    seconds: float = 0.0
    device: str = ""
    rows: Mapping[str, int] = field(default_factory=dict)
    primary: Mapping[str, str] = field(default_factory=dict)
    findings: tuple[str, ...] = ()
