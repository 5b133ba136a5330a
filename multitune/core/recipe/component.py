"""What every part of a recipe is made of: strict models, components, and steps or shares."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator


class Strict(BaseModel):
    """A part of the recipe: unknown names are refused and nothing changes later."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False)

    def given(self, name: str) -> bool:
        """Whether the recipe states this field, or leaves it at its default."""
        return name in self.model_fields_set


class Component(Strict):
    """`{name, ...options}`, or just its name; `auto` leaves the choice to the task."""

    name: str = "auto"
    options: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _from_short(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"name": value}
        if isinstance(value, Mapping) and set(value) != {"name", "options"}:
            rest = {str(k): v for k, v in value.items() if k != "name"}
            return {"name": value.get("name", "auto")} | ({"options": rest} if rest else {})
        return value


def step_or_share(value: int | str) -> int | str:
    """A step count, or a share such as `50%`, checked.

    Raises: ValueError if it is neither.
    """
    if isinstance(value, int):
        if value < 0:
            raise ValueError("steps are not negative")
        return value
    if not re.fullmatch(r"\d+(\.\d+)?%", value) or float(value[:-1]) > 100:
        raise ValueError('give steps (100) or a share ("50%")')
    return value


def _watched(metric: str) -> str:
    if metric and not metric.startswith("valid/"):
        raise ValueError(f"training sees figures of the validation split alone, such as valid/{metric.rpartition('/')[2]}")
    return metric


Watched = Annotated[str, AfterValidator(_watched)]  # the name of a figure that is measured in training, such as `valid/accuracy`


def steps_of(value: int | str, *, total: int) -> int:
    """Steps meant by a count or a share of `total`, rounded to the nearest."""
    return value if isinstance(value, int) else round(float(value[:-1]) / 100 * total)
