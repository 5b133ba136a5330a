"""A picture turned, moved, scaled and slanted a little, about its middle; what comes in from outside is the nearest edge. Bicubic."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from PIL import Image
from pydantic import Field

from multitune.core import catalog
from multitune.core.protocols import Augmentation


class Options(catalog.Options):
    """How far each change may go; every one is drawn evenly from both directions."""

    degrees: float = Field(default=10.0, ge=0, le=180, description="Largest turn, either way.")
    translate: float = Field(default=0.05, ge=0, lt=1, description="Largest move across and down, as a share of the side.")
    scale: float = Field(default=0.1, ge=0, lt=1, description="Largest change of size: 0.1 is from 0.9 to 1.1 times.")
    shear: float = Field(default=0.0, ge=0, le=45, description="Largest slant across, in degrees.")


class Affine:
    """The augmentation."""

    modality = "image"

    def __init__(self, options: Options) -> None:
        self._options = options

    def apply(self, value: Any, generator: np.random.Generator) -> Any:
        """The picture changed, at the size it had."""
        options = self._options
        turn, across, down, size, slant = generator.uniform(-1, 1, size=5).tolist()
        height, width = value.shape[:2]
        margin = max(height, width)
        grown = np.pad(value, [(margin, margin), (margin, margin)] + [(0, 0)] * (value.ndim - 2), mode="edge")
        matrix = _inverse(math.radians(turn * options.degrees), 1 + size * options.scale, math.radians(slant * options.shear))
        # PIL asks, for each place in the result, where it comes from: the middle of the result is the middle of the picture, moved.
        middle = (width / 2, height / 2)
        moved = (middle[0] + across * options.translate * width, middle[1] + down * options.translate * height)
        (a, b), (d, e) = matrix
        c = margin + middle[0] - a * moved[0] - b * moved[1]
        f = margin + middle[1] - d * moved[0] - e * moved[1]
        picture = Image.fromarray(grown)
        return np.array(picture.transform((width, height), Image.Transform.AFFINE, (a, b, c, d, e, f), resample=Image.Resampling.BICUBIC))


def build(options: Options) -> Augmentation:
    """The augmentation of these options."""
    return Affine(options)


def _inverse(turn: float, size: float, slant: float) -> tuple[tuple[float, float], tuple[float, float]]:
    turned = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    slanted = np.array([[1.0, math.tan(slant)], [0.0, 1.0]])
    (a, b), (d, e) = np.linalg.inv(size * turned @ slanted).tolist()
    return (a, b), (d, e)
