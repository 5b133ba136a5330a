"""The recipe's `average`: which weights are averaged into the model that is kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Field, field_validator, model_validator

from multitune.core.recipe.component import Strict, Watched, step_or_share

Share = Annotated[float, Field(ge=0, le=1)]


class Ema(Strict):
    """A running average of what moves, taken after every optimizer step; it is what is evaluated and kept."""

    decay: float = Field(default=0.999, ge=0, lt=1, description="share of the average that a step leaves as it was")
    start: int | str = Field(default=0, description="the step, or share of the steps, at which it begins")
    warmup: bool = Field(default=True, description="at first a smaller decay, (1 + k) / (10 + k) at the k-th step")

    @field_validator("start")
    @classmethod
    def _step_or_share(cls, value: int | str) -> int | str:
        return step_or_share(value)


class Soup(Strict):
    """At the end, the mean of the weights at several evaluations: the last so many, or the best by `average.metric`."""

    last: int = Field(default=0, ge=0, description="evaluations, the last ones")
    best: int = Field(default=0, ge=0, description="evaluations, the best ones")
    greedy: bool = Field(default=False, description="take each in only where validation is then no worse, the best first")

    @model_validator(mode="after")
    def _hangs_together(self) -> Soup:
        if (self.last > 0) == (self.best > 0):
            raise ValueError("give either last or best, the number of evaluations whose weights are averaged, such as last: 3")
        return self


class Interpolate(Strict):
    """At the end, go back part of the way to the pretrained weights (WiSE-FT)."""

    tuned: tuple[Share, ...] = Field(min_length=1, description="share of the tuned weights; of several, validation picks one")

    @field_validator("tuned", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        return value if isinstance(value, Sequence) and not isinstance(value, str) else (value,)

    @field_validator("tuned")
    @classmethod
    def _are_different(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if len(set(value)) != len(value):
            raise ValueError("a share stands twice")
        return value


class AverageSpec(Strict):
    """Which weights are averaged into the model that is kept; nothing unless asked for."""

    ema: Ema | None = None
    soup: Soup | None = None
    interpolate: Interpolate | None = None
    metric: Watched = Field(default="", description="figure by which validation chooses; empty: that of train.early_stop")

    @model_validator(mode="after")
    def _hangs_together(self) -> AverageSpec:
        if self.ema is not None and self.soup is not None:
            raise ValueError("ema and soup are both averages over steps: leave one out (average.soup=null on the command line)")
        return self

    @property
    def chooses(self) -> bool:
        """Whether validation has something to choose."""
        soup, interpolate = self.soup, self.interpolate
        return (soup is not None and (soup.best > 0 or soup.greedy)) or (interpolate is not None and len(interpolate.tuned) > 1)
