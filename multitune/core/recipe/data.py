"""The recipe's `data`: where rows come from, what their parts are, how they are split."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from multitune.core.recipe.component import Component, Strict

Missing = Literal["drop", "mask", "refuse"]
RESERVED = ("id", "cause")


class PartSpec(Strict):
    """How one part is read: its modality, its column, its augmentations, and what to do where it is missing."""

    modality: str
    column: str = ""
    missing: Missing | Literal["data"] = "data"
    augment: tuple[Component, ...] = ()
    options: dict[str, Any] = Field(default_factory=dict, description="of the modality, such as max_length for text")

    @model_validator(mode="before")
    @classmethod
    def _from_short(cls, value: Any) -> Any:
        return {"modality": value} if isinstance(value, str) else value


class MixEntry(Strict):
    """One source of a mix; `weight` multiplies how often its rows are drawn in an epoch."""

    source: Component
    weight: float = Field(default=1.0, gt=0, le=1000)


class JoinSpec(Strict):
    """Other sources whose columns are joined to each row by equal values of the column `key`."""

    key: str
    sources: tuple[Component, ...]


class SplitSpec(Strict):
    """Fractions by a hash of the row's group or id; or a `column` that names the split; or `sources` for valid and test."""

    train: float = Field(default=0.8, ge=0, le=1)
    valid: float = Field(default=0.1, ge=0, le=1)
    test: float = Field(default=0.1, ge=0, le=1)
    group: str = Field(default="", description="column whose rows stay in one split; empty: the source's own group, else the id")
    seed: int = 0
    column: str = Field(default="", description="column with train, valid or test")
    sources: dict[Literal["valid", "test"], Component] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _hangs_together(self) -> SplitSpec:
        shares = [name for name in ("train", "valid", "test") if self.given(name)]
        if self.column and self.sources:
            raise ValueError(f"column and sources exclude each other: the rows of {' and '.join(self.sources)} have a split already")
        if self.column and shares:
            raise ValueError(f'the column "{self.column}" decides the split, so {" and ".join(shares)} would have no effect: leave one out')
        twice = [name for name in shares if name in self.sources]
        if twice:
            raise ValueError(f"{twice[0]} has a source of its own, so its share would have no effect: leave one out")
        if not self.column and not self.sources and abs(self.train + self.valid + self.test - 1) > 1e-9:
            raise ValueError(f"train + valid + test is {self.train + self.valid + self.test:g}, it should be 1")
        return self


class DataSpec(Strict):
    """Where rows come from, what their parts are, which parts are answers, how rows are split."""

    source: Component | None = None
    mix: tuple[MixEntry, ...] = ()
    join: JoinSpec | None = None
    parts: dict[str, PartSpec] = Field(min_length=1)
    answers: tuple[str, ...] = ()
    split: SplitSpec = SplitSpec()
    missing: Missing = "refuse"
    max_loss: float = Field(default=0.01, ge=0, le=1, description="share of rows that may be quarantined before the run stops")
    limit: int = Field(default=0, ge=0, description="use only the first rows of the train split by hash order; 0: all")

    @field_validator("parts", mode="before")
    @classmethod
    def _is_a_mapping(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            raise ValueError("give each part its modality, such as {image: image, label: category}")
        return value

    @field_validator("parts")
    @classmethod
    def _are_names(cls, value: dict[str, PartSpec]) -> dict[str, PartSpec]:
        for name in value:
            if not re.fullmatch(r"[^\W\d][\w-]{0,63}", name) or name in RESERVED:
                found = "is kept for the row itself" if name in RESERVED else "is no name of a part"
                raise ValueError(f'"{name}" {found}; letters, digits, hyphens and underscores make one, at most 64, a letter first')
        return value

    @model_validator(mode="after")
    def _hangs_together(self) -> DataSpec:
        if (self.source is None) == (not self.mix):
            raise ValueError("give either source or mix")
        unknown = [name for name in self.answers if name not in self.parts]
        if unknown:
            raise ValueError(f'the answer "{unknown[0]}" is no part; parts are {", ".join(self.parts)}')
        changed = [name for name in self.answers if self.parts[name].augment]
        if changed:
            raise ValueError(f'"{changed[0]}" is an answer, which is never augmented: leave its augment out')
        return self

    @property
    def inputs(self) -> dict[str, PartSpec]:
        """The parts that the model reads."""
        return {name: part for name, part in self.parts.items() if name not in self.answers}

    @property
    def entries(self) -> tuple[MixEntry, ...]:
        """The sources with their weights, one or several."""
        return self.mix if self.source is None else (MixEntry(source=self.source),)
