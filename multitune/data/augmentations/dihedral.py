"""One of the eight ways to lay a square picture on itself: flips, quarter turns, transposes, equally often.

A picture that is not square keeps its sides: it is turned by half at most. Only where up, down, left and right mean nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from multitune.core import catalog
from multitune.core.protocols import Augmentation


class Options(catalog.Options):
    """No options."""


class Dihedral:
    """The augmentation."""

    modality = "image"

    def apply(self, value: Any, generator: np.random.Generator) -> Any:
        """The picture turned and mirrored."""
        upside_down, mirrored, transposed = (bool(bit) for bit in generator.integers(0, 2, size=3))
        if upside_down:
            value = value[::-1]
        if mirrored:
            value = value[:, ::-1]
        if transposed and value.shape[0] == value.shape[1]:
            value = value.transpose(1, 0, 2)
        return np.ascontiguousarray(value)


def build(options: Options) -> Augmentation:
    """The augmentation of these options."""
    return Dihedral()
