"""The recipe's `features`: whether what frozen towers give is kept, where they are cut, and in which type."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from multitune.core.recipe.component import Strict

FeatureType = Literal["fp32", "bf16", "fp16"]
NO_CUT = "none"


class FeaturesSpec(Strict):
    """Whether what frozen towers give is kept, where they are cut, and in which type."""

    store: Literal["auto", "on", "off"] = Field(
        default="auto", description="auto: what does not move is encoded once a row where that saves time; on: always, or an error"
    )
    cuts: dict[str, str] = Field(default_factory=dict, description="tower: the block (or tower) up to which it is kept, or none")
    views: int = Field(default=0, ge=0, description="fixed derived views of an augmented row, taken in turn; 0: another one in each epoch")
    folder: str = Field(default="", description="empty: `features` in MULTITUNE_CACHE")
    type: FeatureType = Field(default="fp32", description="fp32 is exact; bf16 and fp16 take half the space, with an error that is told")
