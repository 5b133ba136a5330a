"""What a recipe says of a tower, and where its numbers come from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from multitune.core import catalog
from multitune.models import tokens
from multitune.models.weights.judging import Dtype

OF_PLUG_INS = ("image_size", "dropout", "stochastic_depth")  # beside a plug-in's name they are its own options


class TowerSpec(catalog.Options):
    """A tower as the recipe names it; in its short form, just `pretrained`. A plug-in may state its options beside its `name`.

    pretrained: a plug-in of models/towers, an embedded base (`tiny/image`), a local folder or a hub id, in this order; a hub id's revision
    stands behind an @, or beside it as `revision`.
    weights: `random` starts from the folder's config alone. pool: how its tokens become one vector. allow_new: shell-style
    patterns of weights that may be missing. dtype: what the weights are loaded as. image_size: height and width of the pictures, where
    they shall be others than those that it was built for; 0 leaves them. dropout, stochastic_depth: in place of what its config states,
    every field of that kind. options: of a plug-in.
    """

    pretrained: str
    weights: Literal["pretrained", "random"] = "pretrained"
    pool: tokens.Pool = "mean"
    allow_new: tuple[str, ...] = ()
    dtype: Dtype = "fp32"
    image_size: int = Field(default=0, ge=0)
    dropout: float | None = Field(default=None, ge=0, lt=1)
    stochastic_depth: float | None = Field(default=None, ge=0, lt=1)
    options: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _from_short(cls, value: Any) -> Any:
        if isinstance(value, Mapping) and "name" in value and not {"pretrained", "options"} & set(value):
            own = {key: value[key] for key in cls.model_fields if key in value and key not in OF_PLUG_INS}
            rest = {key: option for key, option in value.items() if key != "name" and key not in own}
            return own | {"pretrained": value["name"], "options": rest}
        if isinstance(value, Mapping) and {"pretrained", "revision"} <= set(value):
            rest = {key: value[key] for key in value if key != "revision"}
            return rest | {"pretrained": f"{value['pretrained']}@{value['revision']}"}
        return {"pretrained": value} if isinstance(value, str) else value


@dataclass(frozen=True)
class Weights:
    """Where numbers come from: what was named, nowhere (meta: shapes only, for plans), or an artifact's folder."""

    mode: Literal["pretrained", "meta", "artifact"] = "pretrained"
    folder: Path | None = None
    seed: int = 0
