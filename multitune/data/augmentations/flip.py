"""Mirror a picture left to right, half of the times. Not for pictures in which left and right mean something, such as writing."""

from __future__ import annotations

from typing import Any

import numpy as np
from pydantic import Field

from multitune.core import catalog
from multitune.core.protocols import Augmentation


class Options(catalog.Options):
    """How often."""

    probability: float = Field(default=0.5, ge=0, le=1, description="Share of the pictures that are mirrored.")


class Flip:
    """The augmentation."""

    modality = "image"

    def __init__(self, options: Options) -> None:
        self._probability = options.probability

    def apply(self, value: Any, generator: np.random.Generator) -> Any:
        """The picture, or its mirror image."""
        return np.ascontiguousarray(value[:, ::-1]) if generator.random() < self._probability else value


def build(options: Options) -> Augmentation:
    """The augmentation of these options."""
    return Flip(options)
