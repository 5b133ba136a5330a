"""The recipe's `strategy`: a preset, presets one after the other (phases), or the rows of the tuning table themselves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

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


class Phase(Strict):
    """A strategy that holds for some steps: `{name, start, stop, ...options}`; start inclusive, stop exclusive.

    Where they are not stated it starts where the phase before it stops, and stops where the next one starts.
    """

    name: str
    start: int | str | None = None
    stop: int | str | None = None
    options: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _from_short(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"name": value}
        if isinstance(value, Mapping):
            own = {str(k): v for k, v in value.items() if k in ("name", "start", "stop")}
            rest = {str(k): v for k, v in value.items() if k not in (*own, "options")} | dict(value.get("options", {}))
            return own | ({"options": rest} if rest else {})
        return value

    @field_validator("start", "stop")
    @classmethod
    def _step_or_share(cls, value: int | str | None) -> int | str | None:
        return value if value is None else step_or_share(value)


def _form(value: Any) -> str:
    """Which of its three forms a strategy has; the names are those of types, which messages leave out of a path."""
    if not isinstance(value, list | tuple):
        return "Component"
    rows = [isinstance(one, TuningRow) or (isinstance(one, Mapping) and "name" not in one) for one in value]
    return "tuple[TuningRow]" if all(rows) else "tuple[Phase]"


Strategy = Annotated[
    Annotated[Component, Tag("Component")]
    | Annotated[tuple[Phase, ...], Tag("tuple[Phase]")]
    | Annotated[tuple[TuningRow, ...], Tag("tuple[TuningRow]")],
    Discriminator(_form),
]
