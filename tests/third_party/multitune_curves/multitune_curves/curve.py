"""Curves: a few numbers in a cell, such as `0.1 0.5 -0.2`; a tower of their own reads them (`curve_reader`)."""

from __future__ import annotations

from typing import Any

import numpy as np
from pydantic import Field

from multitune.core import catalog
from multitune.core.protocols import CellModality
from multitune.core.randomness import generator

LONGEST = 64


class Options(catalog.Options):
    """How the numbers stand in a cell."""

    separator: str = Field(default=" ", min_length=1, description="what stands between two numbers")


class Curves:
    """The modality of curves; a decoded one is a float32 array (points,)."""

    name = "curve"
    media = False
    towers = ("curve",)
    max_bytes = 10_000
    magic: dict[str, tuple[tuple[int, bytes], ...]] = {}  # noqa: RUF012

    def __init__(self, separator: str) -> None:
        self.separator = separator

    def decode(self, value: Any) -> np.ndarray:
        """The numbers of a cell, or a list of numbers. Raises ValueError."""
        words = value.split(self.separator) if isinstance(value, str) else value
        if not isinstance(words, list | tuple | np.ndarray):
            raise ValueError(f"found {type(value).__name__}, not a curve")
        points = np.array([float(word) for word in words], np.float32)
        if not 0 < len(points) <= LONGEST or not np.isfinite(points).all():
            raise ValueError(f"found {len(points)} points; 1 to {LONGEST} finite numbers are taken")
        return points

    def write(self, value: np.ndarray) -> str:
        """The numbers with a separator between each two."""
        return self.separator.join(map(str, value.tolist()))

    def synthesize(self, seed: int) -> np.ndarray:
        """A walk of 4 to 32 points."""
        rng = generator("curve", seed)
        return rng.standard_normal(int(rng.integers(4, 33))).cumsum().astype(np.float32)


def build(options: Options) -> CellModality:
    """The modality."""
    return Curves(options.separator)
