"""A random window of a picture, blown up to the picture's own size: things get larger and move. Bilinear."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image
from pydantic import Field

from multitune.core import catalog
from multitune.core.protocols import Augmentation


class Options(catalog.Options):
    """How much may be cut away."""

    smallest: float = Field(default=0.7, gt=0, le=1, description="Side of the smallest window, as a share of the picture's.")


class Crop:
    """The augmentation."""

    modality = "image"

    def __init__(self, options: Options) -> None:
        self._smallest = options.smallest

    def apply(self, value: Any, generator: np.random.Generator) -> Any:
        """The window, as large as the picture was."""
        share, across, down = generator.uniform(self._smallest, 1), generator.random(), generator.random()
        height, width = value.shape[:2]
        high, wide = max(1, round(height * share)), max(1, round(width * share))
        top, left = round((height - high) * down), round((width - wide) * across)
        window = Image.fromarray(np.ascontiguousarray(value[top : top + high, left : left + wide]))
        return np.array(window.resize((width, height), Image.Resampling.BILINEAR))


def build(options: Options) -> Augmentation:
    """The augmentation of these options."""
    return Crop(options)
