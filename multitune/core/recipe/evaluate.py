"""The recipe's `evaluate`: what is measured, and beside what."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from multitune.core.recipe.component import Component, Strict


class EvaluateSpec(Strict):
    """What is measured, and beside what."""

    metrics: tuple[Component, ...] = Field(default=(), description="empty: the task's")
    match: str = Field(default="", description="retrieval: a hit is an equal value of this column; empty: the same id")
    intervals: int = Field(default=1000, ge=0, description="bootstrap draws; 0: no intervals")
    baselines: bool = Field(default=True, description="majority or chance, and the untuned model")
    ablations: bool = Field(default=True, description="each part left out and each shuffled, where a model takes several")
    slices: tuple[str, ...] = Field(default=(), description="columns: the rows of each of their values are measured by themselves too")
    thresholds: Literal["half", "valid"] = Field(
        default="half",
        description="a label is given from a probability of a half on; valid: from that of the best F1 on the validation split",
    )
    generate: dict[str, Any] = Field(default_factory=dict, description="max_new_tokens, temperature, top_p; greedy by default")
