"""The recipe's `features`: whether what frozen towers give is kept, where, and in which type."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from multitune.core.recipe.component import Strict

FeatureType = Literal["fp32", "bf16", "fp16"]


class FeaturesSpec(Strict):
    """Whether what frozen towers give is kept, where, and in which type."""

    store: Literal["auto", "off"] = Field(default="off", description="auto: what never moves in the run is encoded once a row")
    folder: str = Field(default="", description="empty: `features` in MULTITUNE_CACHE")
    type: FeatureType = Field(default="fp32", description="fp32 is exact; bf16 and fp16 take half the space, with an error that is told")
