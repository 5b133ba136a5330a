"""The recipe's `train.bucket`: how rows of like length come together."""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from multitune.core.recipe.component import Strict


class BucketSpec(Strict):
    """Rows of like length go into a batch together; within a window of batches, so that the order stays random beyond it."""

    by: str = Field(
        default="auto", min_length=1, description="the stream whose length decides, mostly a part's name; auto: all of them, added"
    )
    window: int = Field(default=50, ge=1, description="batches within which a row may move; 1: within its own batch, into micro-batches")

    @model_validator(mode="before")
    @classmethod
    def _from_short(cls, value: Any) -> Any:
        return {"by": value} if isinstance(value, str) else value
