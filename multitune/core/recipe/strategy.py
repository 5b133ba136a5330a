"""The recipe's `strategy`: rows of the tuning table."""

from __future__ import annotations

from pydantic import Field, field_validator

from multitune.core.recipe.component import Component, Strict, step_or_share


class TuningRow(Strict):
    """A row of the tuning table: shell-style `pattern` over tower paths; later rows win; unmatched is frozen."""

    pattern: str
    rate: float = Field(default=1.0, ge=0, description="multiplies train.lr; 0 freezes")
    start: int | str = 0
    stop: int | str | None = None
    insert: Component | None = Field(default=None, description="what is put into the matched modules, such as lora")

    @field_validator("start", "stop")
    @classmethod
    def _step_or_share(cls, value: int | str | None) -> int | str | None:
        return value if value is None else step_or_share(value)
